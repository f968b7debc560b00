/* Stands in for TensorRT (libnvinfer.so.10), far enough for ONNX Runtime's TensorRT provider to load and to parse its
 * options. Nothing can be built or run with it.
 */

#define METHODS 64

enum { TENSORRT_10_16_1 = 101601 };

/* The plugin registry is a C++ object whose methods the provider calls while it loads: one pointer to a table of
 * functions, all of which answer "nothing". */
static long nothing(void)
{
    return 0;
}

static void *methods[METHODS];
static void *registry[1];

__attribute__((constructor)) static void fill(void)
{
    for (int i = 0; i < METHODS; i++) {
        methods[i] = (void *)nothing;
    }
    registry[0] = methods;
}

void *getPluginRegistry(void)
{
    return registry;
}

int getInferLibVersion(void)
{
    return TENSORRT_10_16_1;
}

void *createInferBuilder_INTERNAL(void *logger, int version)
{
    (void)logger, (void)version;
    return 0;
}

void *createInferRefitter_INTERNAL(void *engine, void *logger, int version)
{
    (void)engine, (void)logger, (void)version;
    return 0;
}

void *createInferRuntime_INTERNAL(void *logger, int version)
{
    (void)logger, (void)version;
    return 0;
}

/* Stands in for TensorRT's ONNX parser (libnvonnxparser.so.10); see libnvinfer_stub.c. */

enum { TENSORRT_10_16_1 = 101601 };

int getNvOnnxParserVersion(void)
{
    return TENSORRT_10_16_1;
}

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version)
{
    (void)network, (void)logger, (void)version;
    return 0;
}

void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version)
{
    (void)refitter, (void)logger, (void)version;
    return 0;
}

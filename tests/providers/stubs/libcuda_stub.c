/* Stands in for the NVIDIA driver (libcuda.so.1) on a machine that has none.
 *
 * It answers as a driver for CUDA 13.1 that sees no GPU. ONNX Runtime's CUDA provider then loads, parses its options,
 * and stops at the first real request. No kernel ever runs on it.
 */

enum { NO_DEVICE = 100, CUDA_13_1 = 13010 };

int cuInit(unsigned flags)
{
    (void)flags;
    return NO_DEVICE;
}

int cuDriverGetVersion(int *version)
{
    *version = CUDA_13_1;
    return 0;
}

/* The one driver function that the provider links to by name. */
int cuTensorMapEncodeTiled(void)
{
    return NO_DEVICE;
}

// A stand-in for libcuda.so.1 in tests. It answers the loader with the values of the environment.
#include <cstdlib>

namespace {
int setting(const char* name, int fallback) {
  const char* const text = std::getenv(name);
  return text == nullptr ? fallback : std::atoi(text);
}
}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int cuInit(unsigned) {
  return setting("STANDIN_INIT", 0);
}
EXPORT int cuDriverGetVersion(int* version) {
  *version = setting("STANDIN_DRIVER", 13000);
  return 0;
}
EXPORT int cuDeviceGetCount(int* devices) {
  *devices = setting("STANDIN_DEVICES", 1);
  return 0;
}
EXPORT int cuGetErrorName(int error, const char** name) {
  *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : error == 999 ? "CUDA_ERROR_UNKNOWN" : nullptr;
  return *name == nullptr;
}

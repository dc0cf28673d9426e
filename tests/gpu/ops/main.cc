// cuda_device_test [GPU] [--f32]
//
// Runs the list of cases of tests/native/ops on a GPU and compares with the CPU reference. Each op
// is tested in fp32 and, unless --f32 is given, with activations in bf16. Also checked are the
// properties that schedules rely on, and that every call gives the same bits. Prints lines as
// ops_test does. Exit code 69: the GPU or software that it needs is missing; 1: a check failed.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "check.h"
#include "device/loader.h"
#include "error.h"
#include "on_device.h"

int main(int count, char** words) {
  using namespace scmoe;
  int index = 0;
  bool half = true;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(words[i], "--f32") == 0)
      half = false;
    else
      index = std::atoi(words[i]);
  }
  try {
    const Device& device = open_cuda(index);
    DeviceInfo info{};
    device.describe(&info);
    std::fprintf(stderr, "%s:%d (%s)\n", device.backend->name, index, info.name);
    const Backend& backend = test::on_device(device);
    const bool right = test::check_backend(backend);
    return (!half || test::check_backend_in_bf16(backend)) && right ? 0 : 1;
  } catch (const Error& error) {
    std::fprintf(stderr, "cuda_device_test: %s: %s\n", error.code, error.what());
    return std::strcmp(error.code, kDeviceMissing) == 0 ? 69 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_device_test: %s\n", error.what());
    return 1;
  }
}

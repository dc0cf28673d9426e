#include "device/loader.h"

#include <dlfcn.h>

#include "device/shared_library.h"
#include "error.h"

namespace scmoe {
namespace {

// A driver runs programs that were built with any minor version of its major version.
constexpr int kLeastDriver = 12000;
constexpr int kLeastCompute = 8;  // for bf16 matrix units and asynchronous copies

const char kDriverRemedy[] =
    "; install the NVIDIA driver (in a container: run it with the NVIDIA container runtime, in Kubernetes: ask for "
    "nvidia.com/gpu), or train on the CPU with gpusPerWorker 0";

// The functions of CUDA's driver that are called before the device library is opened.
struct DriverCalls {
  int (*init)(unsigned flags);
  int (*version)(int* version);
  int (*count)(int* devices);
  int (*error_name)(int error, const char** name);
};

std::string error_text(const DriverCalls& calls, int error) {
  const char* name = nullptr;
  if (calls.error_name(error, &name) != 0 || name == nullptr) return "error " + std::to_string(error);
  return std::string(name) + " (" + std::to_string(error) + ")";
}

// The folder of the binary that contains this code.
std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

const Device& open_library(int driver_version) {
  // The backend uses cuBLASLt without linking to it, so that a missing cuBLASLt has its own
  // message.
  SharedLibrary(
      "cuBLASLt", "SCMOE_CUBLASLT_LIBRARY", {"libcublasLt.so.13", "libcublasLt.so.12"},
      "; install CUDA's libcublas (Debian and Ubuntu: libcublas-13-0, PyPI: nvidia-cublas), use the GPU image, or "
      "set SCMOE_CUBLASLT_LIBRARY to its path")
      .share();
  const SharedLibrary file(
      "The CUDA backend", "SCMOE_CUDA_LIBRARY", {own_folder() + "/libscmoe_cuda.so", "libscmoe_cuda.so"},
      "; build it (worker/native/cuda/CMakeLists.txt), use the GPU image, or set SCMOE_CUDA_LIBRARY "
      "to its path");
  const Device* const device = file.function<DeviceEntry>(kDeviceEntry)(kDeviceAbi);
  if (device == nullptr || device->abi != kDeviceAbi) {
    file.fail("was built for another version of the engine; build both from one tree");
  }
  // The driver's CUDA must have at least the library's major version.
  if (device->runtime_version / 1000 > driver_version / 1000) {
    file.fail("was built with CUDA " + cuda_version_text(device->runtime_version) + ", but the driver runs CUDA " +
              cuda_version_text(driver_version) + " at most: update the driver, or build with an older toolkit");
  }
  return *device;
}

}  // namespace

std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Driver open_driver() {
  const SharedLibrary file("The NVIDIA driver's libcuda.so.1", "SCMOE_CUDA_DRIVER", {"libcuda.so.1"}, kDriverRemedy);
  DriverCalls calls{};
  file.bind(calls.init, "cuInit");
  file.bind(calls.version, "cuDriverGetVersion");
  file.bind(calls.count, "cuDeviceGetCount");
  file.bind(calls.error_name, "cuGetErrorName");
  Driver driver;
  driver.path = file.path();
  if (const int error = calls.version(&driver.version); error != 0) {
    file.fail("does not say its version: " + error_text(calls, error));
  }
  if (driver.version < kLeastDriver) {
    file.fail("runs CUDA " + cuda_version_text(driver.version) + " at most, " + cuda_version_text(kLeastDriver) +
              " is needed: update it");
  }
  if (const int error = calls.init(0); error != 0) {
    file.fail("does not start: " + error_text(calls, error) +
              ". See nvidia-smi, and check that /dev/nvidia* exists and what CUDA_VISIBLE_DEVICES says");
  }
  if (const int error = calls.count(&driver.devices); error != 0 || driver.devices == 0) {
    file.fail("sees no GPU. See nvidia-smi, and check CUDA_VISIBLE_DEVICES");
  }
  return driver;
}

const Device& open_cuda(int index) {
  const Driver driver = open_driver();
  if (index < 0 || index >= driver.devices) {
    throw Error(kDeviceMissing, "GPU " + std::to_string(index) + " is wanted, but this process sees " +
                                    std::to_string(driver.devices) +
                                    ", counted from 0: ask for as many GPUs as there are ranks in the pod");
  }
  const Device& device = open_library(driver.version);
  DeviceInfo info{};
  try {
    device.use(index);
    device.describe(&info);
  } catch (const std::exception& error) {
    throw Error(kDeviceMissing, "GPU " + std::to_string(index) + " does not answer: " + error.what() +
                                    ". See nvidia-smi; the driver runs CUDA " + cuda_version_text(driver.version) +
                                    ", the backend was built with " + cuda_version_text(device.runtime_version));
  }
  if (info.compute_major < kLeastCompute) {
    throw Error(kDeviceMissing, "GPU " + std::to_string(index) + " is a " + info.name + " of compute capability " +
                                    std::to_string(info.compute_major) + "." + std::to_string(info.compute_minor) +
                                    ", 8.0 or newer is needed (the backend is built for " + device.built_for +
                                    "): use an A100 or newer, or train on the CPU with gpusPerWorker 0");
  }
  return device;
}

}  // namespace scmoe

#include "hardware.h"

#include "device/loader.h"
#include "device/nccl/library.h"

namespace scmoe {
namespace {

// The part that `find` fills in, or the error that it throws as `missing`.
template <typename Find>
Part part_of(Find find) {
  Part part;
  try {
    find(part);
  } catch (const Error& error) {
    part.missing = error.what();
  }
  return part;
}

}  // namespace

Inspection inspect_hardware() {
  Inspection found;
  found.cpu = cpu_backend()->name;
  int devices = 0;
  found.driver = part_of([&](Part& part) {
    const Driver driver = open_driver();
    part.path = driver.path;
    part.text = "CUDA " + cuda_version_text(driver.version);
    devices = driver.devices;
  });
  if (devices > 0) {
    found.library = part_of([&](Part& part) {
      const Device& device = open_cuda(0);
      part.text = "built with CUDA " + cuda_version_text(device.runtime_version) + " for " + device.built_for;
      for (int i = 0; i < devices; ++i) {
        device.use(i);
        found.devices.emplace_back();
        device.describe(&found.devices.back());
      }
    });
  }
  found.nccl = part_of([](Part& part) {
    part.path = nccl::library().path;
    part.text = "NCCL " + nccl::version_text(nccl::library().version);
  });
  return found;
}

Engine::MakeExecutor executor_for(const HardwareOptions& options) {
  if (options.backend == "cpu") {
    return [backend = cpu_backend()](const EngineOptions& engine, Communicator& communicator, Interrupt& interrupt) {
      return make_host_executor(engine, backend, communicator, interrupt);
    };
  }
  if (options.backend == "cuda") {
    const Device& device = open_cuda(options.device.index);
    return [&device, own = options.device](const EngineOptions& engine, Communicator& control, Interrupt& interrupt) {
      return make_device_executor(engine, device, own, control, interrupt);
    };
  }
  throw std::invalid_argument("backend is '" + options.backend + "', wants cpu or cuda");
}

}  // namespace scmoe

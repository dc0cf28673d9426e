#include "hardware.h"

#include "device/loader.h"

namespace scmoe {

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

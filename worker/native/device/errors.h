// Turns errors of a device's own runtime into errors of the engine.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

#include "error.h"

namespace scmoe {

// Makes calls of device.h. An exception becomes DEVICE_FAILED with the device's name before its
// text; Error and std::bad_alloc pass through.
template <typename Calls>
auto on_device(const std::string& name, Calls calls) {
  try {
    return calls();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(kDeviceFailed, name + ": " + error.what());
  }
}

}  // namespace scmoe

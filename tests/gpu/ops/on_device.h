// The ops of a device library as a backend whose buffers lie in this process's memory: a call copies them to the
// device, runs there and copies back.
#pragma once

#include "device.h"

namespace scmoe::test {

// Around every buffer lie bytes that no op may touch, and what is no output may not change: a call throws
// std::runtime_error naming the op and the place where one does. One device for the life of the process, chosen before.
const Backend& on_device(const Device& device);

}  // namespace scmoe::test

#include "device/arenas.h"

#include <algorithm>
#include <new>
#include <utility>

#include "device/errors.h"

namespace scmoe {

int64_t DeviceMemory::available() const {
  DeviceInfo info{};
  on_device(name_, [&] {
    device_.use(index_);
    device_.describe(&info);
  });
  return info.free_bytes + std::max<int64_t>(transient_bytes_, 0);
}

void DeviceMemory::require(int64_t needed) const {
  const int64_t present = available();
  if (needed <= present) return;
  throw Error(kOutOfMemory,
              std::to_string(needed) + " bytes needed on " + name_ + ", " + std::to_string(present) +
                  " free; lower the batch or the sequence length, raise the micro-batches or the expert-parallel size, "
                  "stop other processes on the device, or use a device with more memory");
}

void DeviceMemory::make_room(int64_t persistent_bytes, int64_t transient_bytes) {
  const bool first = persistent_bytes_ < 0;
  const bool grow = transient_bytes > transient_bytes_;
  if (!first && !grow) return;
  require((first ? persistent_bytes : 0) + (grow ? transient_bytes : 0));
  try {
    on_device(name_, [this] { device_.use(index_); });
    if (first) {
      const auto image = std::make_shared<Arena>(persistent_bytes);
      persistent_ = on_device(name_, [&] { return device_.allocate(persistent_bytes); });
      image_ = image;
      persistent_bytes_ = persistent_bytes;
    }
    if (grow) {
      // No run is under way, so the region's contents are not needed. It is released first because
      // both regions may not fit together.
      device_.release(std::exchange(transient_, nullptr));
      transient_bytes_ = -1;
      transient_ = on_device(name_, [&] { return device_.allocate(transient_bytes); });
      transient_bytes_ = transient_bytes;
    }
  } catch (const std::bad_alloc&) {
    throw Error(kOutOfMemory, name_ + " has enough free memory, but not in one piece of " +
                                  std::to_string(transient_bytes) + " bytes; stop other processes on the device");
  }
}

void DeviceMemory::copy(char* to, const char* from, int64_t bytes) const {
  on_device(name_, [&] {
    device_.use(index_);
    device_.copy_now(to, from, bytes);
  });
}

void DeviceMemory::upload(int64_t offset, int64_t bytes) {
  copy(persistent() + offset, image_->data() + offset, bytes);
}

void DeviceMemory::download(int64_t offset, int64_t bytes) {
  copy(image_->data() + offset, persistent() + offset, bytes);
}

void DeviceMemory::release() {
  device_.release(std::exchange(persistent_, nullptr));
  device_.release(std::exchange(transient_, nullptr));
  persistent_bytes_ = transient_bytes_ = -1;
  image_.reset();
}

}  // namespace scmoe

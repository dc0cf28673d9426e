// The two memory regions on a device, and an image of the persistent one in this process's memory.
#pragma once

#include <string>

#include "device.h"
#include "executor/memory.h"

namespace scmoe {

class DeviceMemory final : public Memory {
 public:
  // `name` is the device's, for messages.
  DeviceMemory(const Device& device, int index, std::string name)
      : device_(device), index_(index), name_(std::move(name)) {}
  ~DeviceMemory() override { release(); }

  int64_t available() const override;
  void make_room(int64_t persistent_bytes, int64_t transient_bytes) override;
  int64_t persistent_bytes() const override { return persistent_bytes_; }
  char* persistent() const override { return static_cast<char*>(persistent_); }
  char* transient() const override { return static_cast<char*>(transient_); }
  // Pages of the image are allocated when touched: buffers that nobody views cost nothing.
  std::shared_ptr<Arena> host() const override { return image_; }
  void upload(int64_t offset, int64_t bytes) override;
  void download(int64_t offset, int64_t bytes) override;
  void release() override;

 private:
  void require(int64_t needed) const;
  void copy(char* to, const char* from, int64_t bytes) const;

  const Device& device_;
  const int index_;
  const std::string name_;
  void* persistent_ = nullptr;
  void* transient_ = nullptr;
  int64_t persistent_bytes_ = -1, transient_bytes_ = -1;
  std::shared_ptr<Arena> image_;
};

}  // namespace scmoe

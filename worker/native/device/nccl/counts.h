// Copies of the router's counts that the host can read. The counts say how many rows each
// all-to-all moves; they are computed on the device.
#pragma once

#include <cstdint>
#include <map>

#include "device.h"

namespace scmoe {

// `place` is the address of an allCounts buffer on the device; `elements` its size.
class HostCounts {
 public:
  explicit HostCounts(const Device& device) : device_(device) {}
  ~HostCounts();
  HostCounts(const HostCounts&) = delete;
  HostCounts& operator=(const HostCounts&) = delete;

  // Begins a run: earlier copies are out of date.
  void begin();
  // Puts the copy on the stream.
  void ask(const void* place, int64_t elements, Stream* stream);
  // Whether the copy has arrived. Asks for it first if nothing has in this run.
  bool ready(const void* place, int64_t elements, Stream* stream);
  // Blocks until a copy that was asked for has arrived.
  void await(const void* place);
  // The counts, once they have arrived.
  const int32_t* values(const void* place) const { return copies_.at(place).values; }

 private:
  struct Copy {
    int32_t* values = nullptr;  // pinned
    int64_t elements = 0;
    Event* copied = nullptr;
    bool asked = false;
  };

  Copy& copy_of(const void* place, int64_t elements);
  void ask(Copy& copy, const void* place, Stream* stream);

  const Device& device_;
  std::map<const void*, Copy> copies_;
};

}  // namespace scmoe

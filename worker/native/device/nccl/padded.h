// All-to-alls that carry the same number of rows to every peer, whatever the router counted: only
// the device reads the counts, so the host never waits for them.
#pragma once

#include <cstdint>
#include <vector>

#include "device.h"
#include "device/nccl/groups.h"
#include "program/program.h"

namespace scmoe {

class PaddedExchange {
 public:
  PaddedExchange(const Device& device, const Topology& topology, NcclGroups& groups)
      : device_(device), rank_(topology.rank), groups_(groups) {}
  ~PaddedExchange();
  PaddedExchange(const PaddedExchange&) = delete;
  PaddedExchange& operator=(const PaddedExchange&) = delete;

  // Allocates buffers that are large enough for the program's exchanges. Throws OUT_OF_MEMORY.
  void prepare(const Program& program);
  // Puts a dispatch or combine on the stream.
  void issue(const ProgramOp& op, Stream* stream);

 private:
  void grow(void*& memory, int64_t bytes);
  void exchange(size_t bytes_each, Stream* stream);

  const Device& device_;
  const int rank_;
  NcclGroups& groups_;
  void* sent_ = nullptr;      // as large as the largest exchange of any program
  void* received_ = nullptr;  // likewise
  int64_t bytes_ = 0;         // of each
  void* segments_ = nullptr;  // PaddedRows::scratch
  int64_t segments_bytes_ = 0;
  std::vector<void*> outgrown_;  // replaced buffers, which recorded graphs may still use
};

}  // namespace scmoe

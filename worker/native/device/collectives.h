// The collectives of the op table on a device, as the device's executor calls them.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "device.h"
#include "interrupt.h"
#include "mesh/communicator.h"
#include "program/program.h"

namespace scmoe {

// Settings of NCCL. The values 0 and -1 leave a setting to NCCL.
struct CollectiveOptions {
  int max_ctas = 0;     // thread blocks that a collective may take from computation
  int cta_policy = -1;  // of ncclConfig_t from NCCL 2.27 on: 0 default, 1 efficiency, 2 zero
  // All-to-alls carry `capacity` rows for each expert, so that shapes are static and no host has to
  // wait for counts.
  bool padded = false;
};

// One thread calls all methods except where a method says otherwise.
class Collectives {
 public:
  virtual ~Collectives() = default;

  // Connects the devices; `control` carries what the hosts have to tell one another. All ranks call
  // it, on a thread that uses the device. Throws DEVICE_MISSING, DEVICE_FAILED, PEER_LOST or
  // PEER_TIMEOUT.
  virtual void connect(Communicator& control, std::chrono::milliseconds timeout) = 0;

  // Allocates what the program's collectives need. Throws OUT_OF_MEMORY.
  virtual void prepare(const Program& program) = 0;

  // Whether the host must have read the router's counts before it can issue the op.
  virtual bool needs_counts(const ProgramOp& op) const = 0;

  // Begins a run: counts that were read earlier are forgotten.
  virtual void begin() = 0;
  // Whether the op can be issued without waiting for counts. Starts to read them if no earlier op
  // of this run has. Ops come in the order of their queue.
  virtual bool ready(const ProgramOp& op, Stream* stream) = 0;
  // Blocks until `ready` is true.
  virtual void await(const ProgramOp& op) = 0;
  // Puts the op on the stream. Throws with `op` set.
  virtual void issue(const ProgramOp& op, Stream* stream) = 0;
  // Throws the errors that have come up since the ops were issued.
  virtual void check() = 0;
  // Ends what is under way, in whatever state; nothing can be issued afterwards. Any thread may
  // call it.
  virtual void abort() = 0;
};

using MakeCollectives = std::function<std::unique_ptr<Collectives>(
    const Device& device, const Topology& topology, const CollectiveOptions& options, Interrupt& interrupt)>;

}  // namespace scmoe

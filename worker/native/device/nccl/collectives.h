// The collectives of a device, moved by NCCL.
#pragma once

#include "device/collectives.h"

namespace scmoe {

// NCCL is opened when ranks connect, so a single rank does not need it.
std::unique_ptr<Collectives> make_nccl_collectives(const Device& device, const Topology& topology,
                                                   const CollectiveOptions& options, Interrupt& interrupt);

}  // namespace scmoe

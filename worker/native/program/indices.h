// The numbers in an op's inputs by which it finds elements of other buffers: tokens, experts, slots
// and counts. Only a run knows them, so they are looked at before each op. That takes about a
// thousandth of the time of the ops that read them.
#pragma once

#include "op_table.h"
#include "program.h"

namespace scmoe {

// Fills op.indices and op.rows from the op's row of the table.
void find_indices(const std::vector<Buffer>& buffers, const OpSpec& spec, const Topology& topology, ProgramOp& op);

// Throws std::runtime_error with the buffer, the place, the value and its bounds if a number of a
// bound op would lead out of a buffer. The op's inputs must be in this process's memory.
void check_indices(const Program& program, const ProgramOp& op);

// The same for all ops whose inputs are on a device, by the host's copy of the persistent region:
// throws Error with the op. What ops on the device write themselves is not looked at.
void check_uploaded(const Program& program, const char* persistent);

}  // namespace scmoe

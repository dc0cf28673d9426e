// The ranks that take part in a collective op.
#pragma once

#include <vector>

#include "program/program.h"

namespace scmoe {

// The group whose members run the op together.
Group group_of(const ProgramOp& op);

// The members of that group without this rank, in rank order.
std::vector<int> peers_of(const ProgramOp& op, const Topology& topology);

// The position of `rank` among the members of a group.
size_t place_of(const std::vector<int>& members, int rank);

}  // namespace scmoe

// The attributes of one op: read from its JSON and held to the op table and to each other.
#pragma once

#include "json_object.h"
#include "op_table.h"

namespace scmoe {

// Fills op.attrs, op.collective and op.group. op.inputs is there already. Throws BAD_PROGRAM for an
// attribute that is missing, unknown or out of range, that differs from the engine's topology, or
// with which no kernel could run.
void parse_attrs(const JsonObject& from, const OpSpec& spec, const Topology& topology, ProgramOp& op);

// Whether the op works on routed rows after dispatch; an activation does if it is given counts.
bool on_routed_rows(const OpSpec& spec, const ProgramOp& op);

}  // namespace scmoe

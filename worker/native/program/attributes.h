// Attributes of one op: read from its JSON, held to the op table and to each other.
#pragma once

#include "json_object.h"
#include "op_table.h"
#include "program.h"

namespace scmoe {

// Fills op.attrs, op.collective and op.group; op.name, op.inputs and op.outputs are there already. Throws BAD_PROGRAM
// for what is missing, unknown or out of range, and where no kernel could run with the values together.
void parse_attrs(const JsonObject& from, const OpSpec& spec, ProgramOp& op);

}  // namespace scmoe

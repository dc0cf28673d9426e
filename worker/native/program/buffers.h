// The buffers of one op, held to its row of the op table.
#pragma once

#include "json_object.h"
#include "op_table.h"

namespace scmoe {

// An op whose attributes and indices of buffers have been parsed.
struct ParsedOp {
  const JsonObject& from;
  const std::vector<Buffer>& buffers;  // of the program
  const OpSpec& spec;
  const ProgramOp& op;
  const Topology& topology;
};

// Checks the number of the op's buffers, their types, their sizes, and whether outputs are inputs.
// Throws BAD_PROGRAM with the op, the buffer and both sizes.
void check_buffers(const ParsedOp& parsed);

}  // namespace scmoe

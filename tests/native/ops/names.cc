// Looks up rows of the op table for the cases.
#include <stdexcept>

#include "case.h"

namespace scmoe::test {
namespace {

const OpSpec& spec_of(const std::string& op) {
  if (const OpSpec* spec = find_op(op)) return *spec;
  throw std::runtime_error("no op " + op);
}

}  // namespace

const std::vector<BufferSpec>& inputs_of(const std::string& op) {
  return spec_of(op).inputs;
}

const std::vector<BufferSpec>& outputs_of(const std::string& op) {
  return spec_of(op).outputs;
}

std::vector<std::string> backward_of(const std::string& op) {
  std::vector<std::string> found;
  for (const OpSpec& spec : op_table())
    for (const char* suffix : {"_backward", "_dgrad", "_wgrad"})
      if (spec.name == op + suffix) found.push_back(spec.name);
  return found;
}

bool takes(const std::string& op, const std::string& attr) {
  return spec_of(op).takes(attr);
}

}  // namespace scmoe::test

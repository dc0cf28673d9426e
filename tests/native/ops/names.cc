// What the op table (worker/native/program/op_table.h) says of an op, taken apart.
#include <stdexcept>

#include "case.h"
#include "program/op_table.h"

namespace scmoe::test {
namespace {

const OpSpec& spec_of(const std::string& op) {
  if (const OpSpec* spec = find_op(op)) return *spec;
  throw std::runtime_error("no op " + op);
}

bool strip(std::string& text, const std::string& suffix) {
  if (!text.ends_with(suffix)) return false;
  text.resize(text.size() - suffix.size());
  return true;
}

std::vector<Name> parse(const char* names) {
  std::vector<Name> parsed;
  for (const std::string& word : words(names)) {
    Name name{.text = word};
    name.optional = strip(name.text, "?");
    name.accumulated = strip(name.text, "+=");
    name.chunked = strip(name.text, "#");
    name.list = strip(name.text, "...");
    name.activation = strip(name.text, "*");
    parsed.push_back(name);
  }
  return parsed;
}

}  // namespace

std::vector<Name> inputs_of(const std::string& op) {
  return parse(spec_of(op).inputs);
}

std::vector<Name> outputs_of(const std::string& op) {
  return parse(spec_of(op).outputs);
}

std::vector<std::string> backward_of(const std::string& op) {
  std::vector<std::string> found;
  for (const OpSpec& spec : op_table())
    for (const char* suffix : {"_backward", "_dgrad", "_wgrad"})
      if (spec.name == op + suffix) found.push_back(spec.name);
  return found;
}

bool takes(const std::string& op, const std::string& attr) {
  for (const std::string& word : words(spec_of(op).attrs))
    if (word == attr) return true;
  return false;
}

}  // namespace scmoe::test

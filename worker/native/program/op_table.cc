#include "op_table.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace scmoe {
namespace {

#include "op_table.generated.h"

}  // namespace

bool OpSpec::takes(std::string_view attr) const {
  const auto names = [attr](const char* name) { return attr == name; };
  return std::any_of(attrs.begin(), attrs.end(), names) || std::any_of(routed_attrs.begin(), routed_attrs.end(), names);
}

const std::vector<OpSpec>& op_table() {
  return kOps;
}

const OpSpec* find_op(std::string_view name) {
  for (const OpSpec& spec : kOps) {
    if (name == spec.name) return &spec;
  }
  return nullptr;
}

const AttrSpec& attr_spec(std::string_view name) {
  for (const AttrSpec& spec : kAttrs) {
    if (name == spec.name) return spec;
  }
  throw std::logic_error("the op table knows no attribute " + std::string(name));
}

std::vector<const BufferSpec*> given(const std::vector<BufferSpec>& specs, size_t count, const Attrs& attrs) {
  if (!specs.empty() && specs.back().repeated) return std::vector<const BufferSpec*>(count, &specs.back());
  std::vector<const BufferSpec*> found;
  size_t needed = 0;
  for (const BufferSpec& spec : specs) {
    if (spec.when != nullptr && attrs.*attr_spec(spec.when).integer != spec.is) continue;
    found.push_back(&spec);
    if (!spec.optional) ++needed;
  }
  // Optional buffers are the last of their side.
  if (count < needed || count > found.size()) return {};
  found.resize(count);
  return found;
}

}  // namespace scmoe

#include "attributes.h"

#include <cmath>

namespace scmoe {
namespace {

using nlohmann::json;
using Object = JsonObject;

std::string quoted(const char* attr) {
  return "attribute '" + std::string(attr) + "'";
}

void parse_attr(const Object& from, const AttrSpec& spec, const json& value, ProgramOp& op) {
  const std::string field = quoted(spec.name);
  if (spec.integer != nullptr) {
    op.attrs.*spec.integer = from.integer(field, value, spec.least, spec.most);
  } else if (spec.real != nullptr) {
    const double number = value.is_number() ? value.get<double>() : NAN;
    if (!std::isfinite(float(number))) from.fail(field, value, "a finite number");
    op.attrs.*spec.real = float(number);
  } else if (const size_t word = from.word(field, value, spec.words); spec.word == Word::kGroup) {
    op.group = Group(word);
  } else {
    op.collective = word == 0 ? Collective::kDispatch : Collective::kCombine;
  }
}

// The attributes of an op in the file.
struct Given {
  const Object& from;
  const Object& attrs;
};

void parse_if_given(const Given& given, const char* name, bool required, ProgramOp& op) {
  const AttrSpec& spec = attr_spec(name);
  const auto found = given.attrs.value.find(name);
  if (found != given.attrs.value.end()) {
    parse_attr(given.from, spec, *found, op);
  } else if (spec.preset != AttrSpec::kRequired) {
    op.attrs.*spec.integer = spec.preset;
  } else if (required) {
    given.from.fail(quoted(name) + " is missing: add it");
  }
}

[[noreturn]] void refuse(const Object& from, const char* attr, int64_t value, const std::string& wanted) {
  from.fail(quoted(attr) + " is " + std::to_string(value) + ", wants " + wanted);
}

void check_topology(const Object& from, const AttrSpec& spec, const Topology& topology, const ProgramOp& op) {
  const int64_t found = op.attrs.*spec.integer, wanted = topology.*spec.equals;
  if (found != wanted) refuse(from, spec.name, found, std::to_string(wanted) + ", as the engine has it");
}

void check_rule(const Object& from, const Rule& rule, const Sizes& sizes) {
  const int64_t value = sizes.attrs.*attr_spec(rule.attr).integer, size = rule.size(sizes).value();
  const std::string wanted = std::to_string(size) + " (" + rule.formula + ")";
  const std::string stated = rule.formula == std::to_string(size) ? rule.formula : wanted;
  if (rule.kind == Rule::kAtMost && value > size) refuse(from, rule.attr, value, "at most " + stated);
  if (rule.kind == Rule::kMultipleOf && value % size != 0) refuse(from, rule.attr, value, "a multiple of " + stated);
}

}  // namespace

bool on_routed_rows(const OpSpec& spec, const ProgramOp& op) {
  return spec.routed_by >= 0 && op.inputs.size() > size_t(spec.routed_by);
}

void parse_attrs(const JsonObject& from, const OpSpec& spec, const Topology& topology, ProgramOp& op) {
  const Object attrs(from.at("attrs"), from.name + ": attrs");
  const bool routed = on_routed_rows(spec, op);
  op.collective = spec.collective;
  const Given given{from, attrs};
  for (const char* name : spec.attrs) parse_if_given(given, name, true, op);
  for (const char* name : spec.routed_attrs) parse_if_given(given, name, routed, op);
  for (const auto& [name, value] : attrs.value.items()) {
    if (!spec.takes(name)) {
      from.fail("attribute '" + name + "' is " + shown(value) + ", but " + spec.name +
                " has no such attribute: remove it");
    }
    const AttrSpec& attr = attr_spec(name);
    if (attr.equals != nullptr) check_topology(from, attr, topology, op);
  }
  const Sizes sizes{op.attrs, topology.world_size, op.inputs.size()};
  for (const Rule& rule : spec.rules) check_rule(from, rule, sizes);
  if (routed) {
    for (const Rule& rule : spec.routed_rules) check_rule(from, rule, sizes);
  } else if (op.attrs.chunks > 1) {
    refuse(from, "chunks", op.attrs.chunks, "1, because only routed rows have chunks and no counts are given");
  } else if (op.attrs.chunk > 0) {
    refuse(from, "chunk", op.attrs.chunk, "0, because only routed rows have chunks and no counts are given");
  }
}

}  // namespace scmoe

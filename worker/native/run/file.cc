#include "run/file.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numbers>
#include <sstream>

#include "error.h"
#include "program/json_object.h"

namespace scmoe::run {
namespace {

using nlohmann::json;
using Object = JsonObject;

constexpr int64_t kMax = int64_t{1} << 53;  // largest integer of a JSON number

double number(const Object& from, const char* field, const json& value) {
  if (!value.is_number()) from.fail(field, value, "a number");
  return value.get<double>();
}

double number(const Object& from, const char* field) {
  return number(from, field, from.at(field));
}

std::string name_in(const Object& from, const char* field, const json& value) {
  if (!value.is_string()) from.fail(field, value, "a name");
  return value.get<std::string>();
}

std::vector<std::string> names(const Object& from, const char* field) {
  std::vector<std::string> list;
  for (const json& value : from.list(field)) list.push_back(name_in(from, field, value));
  return list;
}

Fill parse_fill(const Object& from) {
  Fill fill;
  fill.buffer = from.text("buffer");
  fill.kind = Fill::Kind(from.word("kind", from.at("kind"), {"normal", "constant", "integers", "values"}));
  if (fill.kind == Fill::Kind::kNormal || fill.kind == Fill::Kind::kIntegers) {
    fill.seed = uint64_t(from.integer("seed", 0, kMax));
    fill.first = from.integer("first", 0, kMax);
  }
  if (fill.kind == Fill::Kind::kNormal) fill.scale = number(from, "std");
  if (fill.kind == Fill::Kind::kConstant) fill.scale = number(from, "value");
  if (fill.kind == Fill::Kind::kIntegers) fill.below = from.integer("below", 1, int64_t{1} << 31);
  if (fill.kind == Fill::Kind::kValues) {
    for (const json& value : from.list("values")) fill.values.push_back(number(from, "values", value));
    if (fill.values.empty()) from.fail("values", from.at("values"), "at least one");
  }
  return fill;
}

void add_program(File& file, const json& program) {
  const Object from(program, "program");
  file.topology = {int(from.integer("rank", 0, 1 << 20)), int(from.integer("worldSize", 1, 1 << 20)),
                   int(from.integer("expertParallelSize", 1, 1 << 20))};
  file.programs.push_back(program.dump());
}

int64_t bytes_of(const json& programs) {
  int64_t persistent = 0, transient = 0;
  for (const json& program : programs) {
    const Object from(program, "program");
    persistent = std::max(persistent, from.integer("persistentBytes", 0, int64_t{1} << 48));
    transient = std::max(transient, from.integer("transientBytes", 0, int64_t{1} << 48));
  }
  return persistent + transient;
}

// splitmix64 (Steele, Lea, Flood): a bijection of 64 bits that sends neighbours far apart.
uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

double uniform(uint64_t bits) {
  return (double(bits >> 11) + 0.5) * 0x1p-53;
}

}  // namespace

File read_file(const std::string& path) {
  std::ifstream stream(path);
  std::stringstream text;
  if (!(text << stream.rdbuf()))
    throw Error(kBadProgram, path + " cannot be read; give a file that bench/gpu/export.ts has written");
  const json parsed = parse_json(text.str());
  const Object from(parsed, path);
  File file;
  if (parsed.contains("ops")) {
    file.title = from.text("name");
    add_program(file, parsed);
    file.step = {file.title};
    file.bytes = bytes_of(json::array({parsed}));
    return file;
  }
  file.title = from.text("title");
  for (const json& program : from.list("programs")) add_program(file, program);
  file.bytes = bytes_of(from.list("programs"));
  file.step = names(from, "step");
  file.report = names(from, "report");
  for (const json& value : from.list("fills")) file.fills.push_back(parse_fill(Object(value, path + ", a fill")));
  const Object parts(from.at("parts"), path + ", parts");
  for (const auto& [label, part] : parts.value.items()) file.parts[label] = name_in(parts, label.c_str(), part);
  file.tokens = number(from, "tokens");
  file.flops = number(from, "flops");
  return file;
}

double value_at(const Fill& fill, int64_t i) {
  const uint64_t place = mixed(mixed(fill.seed) + uint64_t(fill.first + i));
  switch (fill.kind) {
    case Fill::Kind::kConstant:
      return fill.scale;
    case Fill::Kind::kIntegers:
      return double(place % uint64_t(fill.below));
    case Fill::Kind::kValues:
      return fill.values[size_t(i) % fill.values.size()];
    case Fill::Kind::kNormal:  // Box-Muller transform
      return fill.scale * std::sqrt(-2 * std::log(uniform(place))) *
             std::cos(2 * std::numbers::pi * uniform(mixed(place)));
  }
  return 0;
}

}  // namespace scmoe::run

#include "json_object.h"

#include <cmath>

#include "error.h"

namespace scmoe {

using nlohmann::json;

json parse_json(std::string_view text) {
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    throw Error(kBadProgram, std::string("program is not JSON: ") + error.what());
  }
}

std::string shown(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  const std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

JsonObject::JsonObject(const json& value, std::string name) : value(value), name(std::move(name)) {
  if (!value.is_object()) throw Error(kBadProgram, this->name + " is " + shown(value) + ", wants an object");
}

void JsonObject::fail(const std::string& what) const {
  throw Error(kBadProgram, name + ": " + what);
}

void JsonObject::fail(const std::string& field, const json& found, const std::string& wanted) const {
  fail(field + " is " + shown(found) + ", wants " + wanted);
}

const json& JsonObject::at(const char* field) const {
  const auto found = value.find(field);
  if (found == value.end()) fail(std::string(field) + " is missing");
  return *found;
}

const json& JsonObject::list(const char* field) const {
  const json& found = at(field);
  if (!found.is_array()) fail(field, found, "a list");
  return found;
}

std::string JsonObject::text(const char* field) const {
  const json& found = at(field);
  if (!found.is_string() || found.get_ref<const std::string&>().empty()) fail(field, found, "a name");
  return found.get<std::string>();
}

int64_t JsonObject::integer(const char* field, int64_t least, int64_t most) const {
  return integer(field, at(field), least, most);
}

int64_t JsonObject::integer(const std::string& field, const json& found, int64_t least, int64_t most) const {
  const double number = found.is_number() ? found.get<double>() : NAN;
  if (!(number >= double(least) && number <= double(most)) || number != std::floor(number)) {
    fail(field, found, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return int64_t(number);
}

size_t JsonObject::word(const std::string& field, const json& found, const std::vector<const char*>& words) const {
  std::string wanted;
  size_t i = 0;
  for (const char* word : words) {
    if (found.is_string() && found.get_ref<const std::string&>() == word) return i;
    wanted += std::string(i++ > 0 ? " or '" : "'") + word + "'";
  }
  fail(field, found, wanted);
}

}  // namespace scmoe

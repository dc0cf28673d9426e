// Reads a JSON file whose author may be wrong. Every mistake throws BAD_PROGRAM with its place, the
// field, the value and what was wanted.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace scmoe {

nlohmann::json parse_json(std::string_view text);

// A value as text for a message, of bounded length.
std::string shown(const nlohmann::json& value);

// One object and its name in messages: "program 'train'", "op 'pair0.encode'".
struct JsonObject {
  const nlohmann::json& value;
  std::string name;

  JsonObject(const nlohmann::json& value, std::string name);

  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void fail(const std::string& field, const nlohmann::json& found, const std::string& wanted) const;

  const nlohmann::json& at(const char* field) const;
  const nlohmann::json& list(const char* field) const;
  std::string text(const char* field) const;  // a string that is not empty
  int64_t integer(const char* field, int64_t least, int64_t most) const;
  int64_t integer(const std::string& field, const nlohmann::json& found, int64_t least, int64_t most) const;
  // The index in `words` of the value.
  size_t word(const std::string& field, const nlohmann::json& found, const std::vector<const char*>& words) const;
};

}  // namespace scmoe

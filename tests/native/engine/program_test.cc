// Tests of the loader with damaged programs.
#include "program/program.h"

#include <random>

#include "world.h"

namespace scmoe::test {
namespace {

using nlohmann::json;

const Topology kTopology{1, 4, 2};

json valid_program() {
  const json group = {{"experts", 4}, {"capacity", 8}, {"rank", 1}, {"expertParallelSize", 2}};
  json to_all = group, grouped = group;
  to_all.update({{"direction", "dispatch"}, {"dim", 8}, {"chunk", 1}, {"chunks", 2}});
  grouped.update({{"in", 8}, {"out", 4}, {"chunk", 0}, {"chunks", 1}});
  return make_program(
      "train", kTopology,
      {{"x", 128},
       {"w", 64},
       {"b", 8},
       {"y", 128},
       {"counts", 4, "i32"},
       {"all", 16, "i32"},
       {"rows", 256},
       {"m", 64},
       {"v", 64},
       {"g", 64}},
      {{"linear", "lin", {0, 1, 2}, {3}, {{"rows", 16}, {"in", 8}, {"out", 8}, {"bias", 1}}},
       {"all_gather_counts", "gather", {4}, {5}, {{"experts", 4}}, {0}},
       {"all_to_all", "dispatch", {3, 5}, {6}, to_all},
       {"grouped_linear", "experts", {6, 1, 5, 2}, {3}, grouped, {2}},
       {"all_reduce", "reduce", {1, 2}, {1, 2}, {{"group", "edp"}}, {3}},
       {"adamw",
        "update",
        {9, 2, 2},
        {1, 7, 8},
        {{"elements", 64}, {"beta1", 0.9}, {"beta2", 0.95}, {"epsilon", 1e-8}, {"weightDecay", 0.1}, {"clip", 1}},
        {4}}});
}

// The paths of all nodes of the file.
std::vector<json::json_pointer> places(const json& file) {
  std::vector<json::json_pointer> found;
  const json flat = file.flatten();
  for (const auto& [path, value] : flat.items()) {
    json::json_pointer pointer(path);
    for (; !pointer.empty(); pointer.pop_back()) found.push_back(pointer);
  }
  return found;
}

json odd_value(std::mt19937& random) {
  const json values[] = {nullptr,
                         true,
                         "",
                         "compute",
                         -1,
                         0,
                         1,
                         63,
                         64,
                         1'000'000,
                         9e18,
                         -0.5,
                         1e308,
                         4294967296.0,
                         json::array(),
                         json::array({1, 2, 3}),
                         json::object(),
                         json::array({-1}),
                         "world",
                         std::string(300, 'x')};
  return values[random() % std::size(values)];
}

bool accepted(const std::string& text) {
  try {
    Program program = parse_program(text, *cpu_backend(), kTopology);
    bind(program, nullptr, nullptr);
    return true;
  } catch (const Error& error) {
    check(error.code == std::string("BAD_PROGRAM"), "refused with " + std::string(error.code));
    check(error.what()[0] != '\0', "refused without a word");
    return false;
  }
}

TEST("a valid program is accepted") {
  check(accepted(valid_program().dump()), "refused");
}

TEST("a program with odd values is accepted or refused with BAD_PROGRAM, and nothing else happens") {
  std::mt19937 random(1);
  const json valid = valid_program();
  const auto all = places(valid);
  constexpr int kRounds = share_of(20'000);
  int refused = 0;
  for (int round = 0; round < kRounds; ++round) {
    json mutated = valid;
    for (uint32_t i = 0; i <= random() % 2; ++i) {
      const auto& place = all[random() % all.size()];
      if (!mutated.contains(place)) continue;
      if (random() % 4 == 0 && mutated[place.parent_pointer()].is_object()) {
        mutated[place.parent_pointer()].erase(place.back());
      } else {
        mutated[place] = odd_value(random);
      }
    }
    refused += !accepted(mutated.dump());
  }
  check(refused > kRounds / 2, "only " + std::to_string(refused) + " of " + std::to_string(kRounds) + " refused");
}

TEST("a file with damaged bytes is accepted or refused with BAD_PROGRAM, and nothing else happens") {
  std::mt19937 random(2);
  const std::string valid = valid_program().dump();
  for (int round = 0; round < share_of(5'000); ++round) {
    std::string damaged = valid;
    for (uint32_t i = 0; i <= random() % 3; ++i) damaged[random() % damaged.size()] = char(random());
    if (random() % 4 == 0) damaged.resize(random() % damaged.size());
    accepted(damaged);
  }
}

// One op over buffers that are large enough for any attributes, and the text of its refusal.
struct Refused {
  test::OpSpec op;
  const char* said;
};

// Seen failing, for each case, with its check taken out of attributes.cc: the program is accepted.
TEST("attributes that no kernel could run with are refused, saying why") {
  const json heads = {{"batch", 1}, {"sequence", 4}, {"dim", 12}, {"heads", 3}, {"keyValueHeads", 1}};
  const json rope = {{"base", 10000}, {"inverse", 0}};
  const json linear = {{"rows", 2}, {"in", 2}, {"out", 2}, {"bias", 0}};
  const json route = {{"rows", 2}, {"dim", 2}, {"experts", 4}, {"topK", 1}, {"capacity", 8}};
  const json gate = {{"rows", 2}, {"dim", 2}, {"coefficients", 1}};
  const json gelu = {{"rows", 2}, {"dim", 2}, {"chunk", 0}, {"chunks", 1}};
  const auto with = [](json attrs, const json& changes) {
    attrs.update(changes);
    return attrs;
  };
  const std::vector<Refused> cases = {
      {{"attention", "a", {0}, {0, 1}, with(heads, {{"keyValueHeads", 2}})},
       "'heads' is 3, wants a multiple of 2 (keyValueHeads)"},
      {{"attention", "a", {0}, {0, 1}, with(heads, {{"heads", 0}})}, "'heads' is 0, wants an integer from 1"},
      {{"attention", "a", {0}, {0, 1}, with(heads, {{"dim", 13}})}, "'dim' is 13, wants a multiple of 3 (heads)"},
      {{"rope", "a", {}, {0}, with(with(heads, rope), {{"dim", 9}})}, "'dim' is 9, wants a multiple of 6 (2 * heads)"},
      {{"linear", "a", {0, 0}, {1}, with(linear, {{"bias", 1}})},
       "linear has 2 inputs, wants x, w, b (if bias is 1), residual (optional)"},
      {{"linear", "a", {0, 0, 0, 0}, {1}, linear}, "linear has 4 inputs, wants x, w, b (if bias is 1)"},
      {{"linear", "a", {0, 0, 2}, {1}, linear}, "input 'residual' of linear (buffer 'i') is i32, wants f32"},
      {{"router", "a", {0, 0}, {0, 2, 0, 2, 2}, with(route, {{"topK", 5}})}, "'topK' is 5, wants at most 4"},
      {{"router", "a", {0, 0, 2}, {0, 2, 0, 2, 2}, with(route, {{"topK", 4}})}, "'topK' is 4, wants at most 3"},
      {{"shared_gate", "a", {0, 0}, {1}, with(gate, {{"coefficients", 3}})}, "'coefficients' is 3"},
      {{"gated_add_backward", "a", {0, 0, 0}, {1, 1}, with(gate, {{"coefficients", 2}})},
       "gated_add_backward has 3 inputs, wants dy, s, c, m (if coefficients is 2)"},
      {{"gelu", "a", {0}, {1}, with(gelu, {{"chunks", 2}})}, "'chunks' is 2, wants 1, because only routed rows"},
      {{"gelu", "a", {0}, {1}, with(gelu, {{"chunk", 1}})}, "'chunk' is 1, wants 0, because only routed rows"},
      {{"gelu", "a", {0}, {1}, with(gelu, {{"chunks", 1025}})}, "'chunks' is 1025, wants an integer from 1 to 1024"},
  };
  for (const auto& [op, said] : cases) {
    const json program = make_program("odd", kTopology, {{"f", 1000}, {"g", 1000}, {"i", 1000, "i32"}}, {op});
    std::string message = "accepted";
    try {
      parse_program(program.dump(), *cpu_backend(), kTopology);
    } catch (const Error& error) {
      message = error.what();
    }
    check(message.find(said) != std::string::npos, std::string(said) + ": " + message);
  }
}

}  // namespace
}  // namespace scmoe::test

// The loader meets files it did not expect.
#include "program.h"

#include <random>

#include "world.h"

namespace scmoe::test {
namespace {

using nlohmann::json;

const Topology kTopology{1, 4, 2};

json valid_program() {
  const json group = {{"experts", 4}, {"capacity", 8}, {"rank", 1}, {"expertParallelSize", 2}};
  json to_all = group, grouped = group;
  to_all.update({{"direction", "dispatch"}, {"dim", 8}});
  grouped.update({{"in", 8}, {"out", 4}});
  return make_program(
      "train", kTopology,
      {{"x", 128}, {"w", 64}, {"b", 8}, {"y", 128}, {"counts", 4, "i32"}, {"all", 16, "i32"}, {"rows", 512}},
      {{"linear", "lin", {0, 1, 2}, {3}, {{"rows", 16}, {"in", 8}, {"out", 8}}},
       {"all_gather_counts", "gather", {4}, {5}, {{"experts", 4}}, {0}},
       {"all_to_all", "dispatch", {3, 5}, {6}, to_all},
       {"grouped_linear", "experts", {6, 1, 2, 5}, {3}, grouped, {2}},
       {"all_reduce", "reduce", {1, 2}, {1, 2}, {{"group", "edp"}}, {3}},
       {"adamw",
        "update",
        {1, 2, 2},
        {1, 1, 1},
        {{"elements", 64}, {"beta1", 0.9}, {"beta2", 0.95}, {"epsilon", 1e-8}, {"weightDecay", 0.1}, {"clip", 1}},
        {4}}});
}

// Every node of the file, by path.
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
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
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
  check(refused > 10'000, "only " + std::to_string(refused) + " of 20000 refused");
}

TEST("a file with damaged bytes is accepted or refused with BAD_PROGRAM, and nothing else happens") {
  std::mt19937 random(2);
  const std::string valid = valid_program().dump();
  for (int round = 0; round < 5'000; ++round) {
    std::string damaged = valid;
    for (uint32_t i = 0; i <= random() % 3; ++i) damaged[random() % damaged.size()] = char(random());
    if (random() % 4 == 0) damaged.resize(random() % damaged.size());
    accepted(damaged);
  }
}

}  // namespace
}  // namespace scmoe::test

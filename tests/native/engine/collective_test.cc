// Collectives of several ranks in one process, so that sanitizers see all threads.
// tests/native/engine/collectives.test.ts compares the numbers with an oracle.
#include <random>

#include "world.h"

namespace scmoe::test {
namespace {

constexpr int64_t kExperts = 4, kDim = 33, kMaxRows = 600;

// A program of all dispatches, then all combines.
nlohmann::json there_and_back(const Topology& topology, int64_t capacity, int64_t chunks) {
  std::vector<test::OpSpec> ops = {{"all_gather_counts", "gather", {0}, {1}, {{"experts", kExperts}}}};
  for (const std::string direction : {"dispatch", "combine"}) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const nlohmann::json attrs = {{"experts", kExperts},    {"capacity", capacity},
                                    {"rank", topology.rank},  {"dim", kDim},
                                    {"chunk", chunk},         {"chunks", chunks},
                                    {"direction", direction}, {"expertParallelSize", topology.expert_parallel_size}};
      const int from = direction == "dispatch" ? 2 : 3;
      ops.push_back({"all_to_all", direction + std::to_string(chunk), {from, 1}, {from + 1}, attrs});
    }
  }
  return make_program("route", topology,
                      {{"counts", kExperts, "i32"},
                       {"all", kExperts * topology.world_size, "i32"},
                       {"rows", kMaxRows * kDim},
                       {"out", kMaxRows * kDim * topology.expert_parallel_size},
                       {"back", kMaxRows * kDim}},
                      ops);
}

TEST("dispatch and combine bring every kept row back, at any capacity, in any chunks and with idle ranks") {
  std::mt19937 random(3);
  for (const int expert_parallel_size : {1, 2, 4}) {
    World world(4, expert_parallel_size);
    world.connect();
    for (const auto& [capacity, chunks] : {std::pair{0, 1}, {7, 1}, {1000, 1}, {7, 8}, {1000, 3}}) {
      world.load([&](int rank) { return there_and_back({rank, 4, expert_parallel_size}, capacity, chunks); });
      for (int rank = 0; rank < 4; ++rank) {
        for (int e = 0; e < kExperts; ++e) data<int32_t>(world[rank], "counts")[e] = rank == 2 ? 0 : random() % 150;
        for (int64_t i = 0; i < kMaxRows * kDim; ++i) data(world[rank], "rows")[i] = float(random() % 1000);
        std::fill_n(data(world[rank], "back"), kMaxRows * kDim, -1.0f);
      }
      world.run("route");
      for (int rank = 0; rank < 4; ++rank) {
        int64_t kept = 0;
        for (int e = 0; e < kExperts; ++e) {
          kept += std::min<int64_t>(capacity, data<int32_t>(world[rank], "counts")[e]);
        }
        for (int64_t i = 0; i < kMaxRows * kDim; ++i) {
          const float expected = i < kept * kDim ? data(world[rank], "rows")[i] : -1.0f;
          check(data(world[rank], "back")[i] == expected,
                "value " + std::to_string(i) + " of rank " + std::to_string(rank));
        }
      }
    }
  }
}

TEST("all_reduce of many blocks gives every rank of a group one sum") {
  constexpr int64_t kElements = 300'007;
  for (const char* const group : {"world", "ep", "edp"}) {
    World world(4, 2);
    world.connect();
    world.load([&](int rank) {
      return make_program("reduce", {rank, 4, 2}, {{"a", 5}, {"b", kElements}},
                          {{"all_reduce", "sum", {0, 1}, {0, 1}, {{"group", group}}}});
    });
    for (int rank = 0; rank < 4; ++rank) {
      float* const b = data(world[rank], "b");
      for (int64_t i = 0; i < kElements; ++i) b[i] = float((rank + 1) * (i % 1000));
    }
    world.run("reduce");
    for (int rank = 0; rank < 4; ++rank) {
      const float factor = group[0] == 'w' ? 10 : group[1] == 'p' ? (rank < 2 ? 3 : 7) : (rank % 2 == 0 ? 4 : 6);
      const float* const sum = data(world[rank], "b");
      for (int64_t i = 0; i < kElements; ++i) {
        if (sum[i] != factor * float(i % 1000)) check(false, "element " + std::to_string(i) + " of group " + group);
      }
    }
  }
}

}  // namespace
}  // namespace scmoe::test

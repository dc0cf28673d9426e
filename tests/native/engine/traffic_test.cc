// Tests of how rarely communication interrupts computation. They count wake-ups instead of
// measuring time.
#include <dirent.h>

#include <fstream>
#include <optional>

#include "relay.h"
#include "world.h"

namespace scmoe::test {
namespace {

// A program that moves 4 MiB from each of two ranks in `chunks` all-to-alls.
nlohmann::json exchange_program(int rank, int64_t chunks) {
  constexpr int64_t kRows = 1024, kDim = 2048, kExperts = 4;
  std::vector<test::OpSpec> ops;
  ops.push_back({"all_gather_counts", "gather", {0}, {1}, {{"experts", kExperts}}});
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const nlohmann::json attrs = {
        {"experts", kExperts}, {"capacity", kRows},       {"rank", rank},           {"dim", kDim}, {"chunk", chunk},
        {"chunks", chunks},    {"direction", "dispatch"}, {"expertParallelSize", 2}};
    ops.push_back({"all_to_all", "dispatch " + std::to_string(chunk), {2, 1}, {3}, attrs});
  }
  return make_program(
      "exchange", {rank, 2, 2},
      {{"counts", kExperts, "i32"}, {"all", 2 * kExperts, "i32"}, {"rows", kRows * kDim}, {"out", 2 * kRows * kDim}},
      ops);
}

// Seen failing with kLowWater = 1 in exchange.cc: 3 KiB.
TEST("a slow link wakes the communication thread for 64 KiB and more at a time") {
  World world(2, 2);
  std::optional<Relay> relay;
  world.connect([&](int port) { return relay.emplace(port, std::chrono::microseconds(10)).port(); });
  for (const int64_t chunks : {1, 4}) {
    world.load([&](int rank) { return exchange_program(rank, chunks); });
    for (int rank = 0; rank < 2; ++rank) {
      for (int e = 0; e < 4; ++e) data<int32_t>(world[rank], "counts")[e] = 256;
    }
    std::vector<Traffic> before;
    for (int rank = 0; rank < 2; ++rank) before.push_back(world[rank].traffic());
    world.run("exchange");
    for (int rank = 0; rank < 2; ++rank) {
      const Traffic& now = world[rank].traffic();
      const uint64_t bytes =
          now.bytes_sent + now.bytes_received - before[rank].bytes_sent - before[rank].bytes_received;
      const uint64_t wake_ups = now.wake_ups - before[rank].wake_ups, calls = now.calls - before[rank].calls;
      const std::string what = std::to_string(bytes) + " bytes in " + std::to_string(wake_ups) + " wake-ups and " +
                               std::to_string(calls) + " calls";
      check(bytes >= (8 << 20), "only " + what);
      check(bytes / wake_ups >= (64 << 10), what);
      check(bytes / calls >= (32 << 10), what);
    }
  }
}

// How often the threads of this name have gone to sleep.
int64_t sleeps(const std::string& thread) {
  int64_t count = 0;
  DIR* const tasks = opendir("/proc/self/task");
  while (const dirent* const task = readdir(tasks)) {
    std::ifstream status("/proc/self/task/" + std::string(task->d_name) + "/status");
    std::string name, word;
    status >> word >> name;
    while (name == thread && status >> word) {
      int64_t switches = 0;
      if (word == "voluntary_ctxt_switches:" && status >> switches) count += switches;
    }
  }
  closedir(tasks);
  return count;
}

// Seen failing with a ring after each finished op: thousands of sleeps.
TEST("compute ops that no collective waits for do not wake the communication thread") {
  static constexpr int kDim = share_of(20'000);  // a few microseconds
  World world(2, 1);
  world.connect();
  world.load([](int rank) {
    std::vector<test::OpSpec> ops;
    for (int i = 0; i < 4000; ++i) {
      ops.push_back({"add", "add " + std::to_string(i), {0, 0}, {1}, {{"rows", 1}, {"dim", kDim}}});
    }
    ops.push_back({"all_reduce", "sum", {0}, {0}, {{"group", "world"}}, {3999}});
    return make_program("long", {rank, 2, 1}, {{"a", kDim}, {"b", kDim}}, ops);
  });
  world.run("long");
  const int64_t before = sleeps("scmoe-comm");
  world.run("long");
  const int64_t slept = sleeps("scmoe-comm") - before;
  check(before > 0, "no thread of that name");
  check(slept < 100, "slept " + std::to_string(slept) + " times");
}

}  // namespace
}  // namespace scmoe::test

#include "world.h"

#include "program/op_table.h"

namespace scmoe::test {

World::World(int world_size, int expert_parallel_size, int timeout_ms) {
  for (int rank = 0; rank < world_size; ++rank) {
    const EngineOptions options{{rank, world_size, expert_parallel_size}, 1, std::chrono::milliseconds(timeout_ms)};
    engines_.push_back(std::make_unique<Engine>(options, cpu_backend()));
  }
}

void World::connect() {
  connect([](int port) { return port; });
}

void World::connect(const std::function<int(int port)>& dialled) {
  std::vector<PeerAddress> peers;
  for (const auto& engine : engines_) peers.push_back({"localhost", engine->listen(0)});
  peers[0].port = dialled(peers[0].port);
  std::vector<Outcome> outcomes(engines_.size());
  for (size_t i = 0; i < engines_.size(); ++i) engines_[i]->connect(peers, TokenDigest{7}, outcomes[i].done());
  for (Outcome& outcome : outcomes) outcome.expect_success();
}

void World::load(const std::function<nlohmann::json(int rank)>& program) {
  for (int rank = 0; rank < size(); ++rank) engines_[rank]->load(program(rank).dump());
}

void World::run(const std::string& name) {
  std::vector<Outcome> outcomes(engines_.size());
  for (size_t i = 0; i < engines_.size(); ++i) engines_[i]->run(name, outcomes[i].done());
  for (Outcome& outcome : outcomes) outcome.expect_success();
}

nlohmann::json make_program(const std::string& name, const Topology& topology, const std::vector<BufferSpec>& buffers,
                            const std::vector<test::OpSpec>& ops) {
  nlohmann::json program = {{"version", 1},
                            {"name", name},
                            {"rank", topology.rank},
                            {"worldSize", topology.world_size},
                            {"expertParallelSize", topology.expert_parallel_size},
                            {"transientBytes", 0},
                            {"buffers", nlohmann::json::array()},
                            {"ops", nlohmann::json::array()}};
  int64_t offset = 0;
  for (const BufferSpec& buffer : buffers) {
    program["buffers"].push_back({{"name", buffer.name},
                                  {"dtype", buffer.dtype},
                                  {"elements", buffer.elements},
                                  {"arena", "persistent"},
                                  {"offset", offset}});
    offset = (offset + buffer.elements * 4 + 63) / 64 * 64;
  }
  program["persistentBytes"] = offset;
  for (const test::OpSpec& op : ops) {
    program["ops"].push_back({{"op", op.op},
                              {"label", op.label},
                              {"queue", find_op(op.op)->is_comm() ? "comm" : "compute"},
                              {"inputs", op.inputs},
                              {"outputs", op.outputs},
                              {"attrs", op.attrs},
                              {"waits", op.waits}});
  }
  return program;
}

}  // namespace scmoe::test

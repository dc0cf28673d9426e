#include "executor/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "error.h"

namespace scmoe {
namespace {

// The number after `key` in a file of "key value" lines. With an empty key, the first word of the
// file if it is a number ("max" is not).
std::optional<int64_t> read_number(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    if (key.empty()) {
      if (word.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
      return std::strtoll(word.c_str(), nullptr, 10);
    }
    if (word != key) continue;
    int64_t value = 0;
    if (file >> value) return value;
  }
  return std::nullopt;
}

// Free bytes of one control group. Page cache counts as used, but the kernel frees it under
// pressure, so inactive_file is added.
std::optional<int64_t> group_available(const std::string& limit, const std::string& used, const std::string& stat,
                                       const char* cache) {
  const auto max = read_number(limit, "");
  const auto current = read_number(used, "");
  if (!max || !current) return std::nullopt;
  return std::max<int64_t>(0, *max - *current + read_number(stat, cache).value_or(0));
}

// Free bytes of the tightest group. Limits apply at every level, so each group between ours and the
// root is read.
int64_t control_group_available() {
  int64_t least = std::numeric_limits<int64_t>::max();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const bool unified = line.rfind("0::", 0) == 0;
    const size_t memory = line.find(":memory:");
    if (!unified && memory == std::string::npos) continue;
    std::string path = unified ? line.substr(3) : line.substr(memory + 8);
    const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (;;) {
      const std::string group = root + (path == "/" ? "" : path);
      const auto bytes = unified ? group_available(group + "/memory.max", group + "/memory.current",
                                                   group + "/memory.stat", "inactive_file")
                                 : group_available(group + "/memory.limit_in_bytes", group + "/memory.usage_in_bytes",
                                                   group + "/memory.stat", "total_inactive_file");
      if (bytes) least = std::min(least, *bytes);
      if (path.size() <= 1) break;
      path.resize(std::max<size_t>(1, path.rfind('/')));
    }
  }
  return least;
}

}  // namespace

int64_t available_memory() {
  const auto kilobytes = read_number("/proc/meminfo", "MemAvailable:");
  const int64_t machine = kilobytes ? *kilobytes * 1024 : std::numeric_limits<int64_t>::max();
  return std::min(machine, control_group_available());
}

void require_memory(int64_t bytes) {
  const int64_t available = available_memory();
  if (bytes <= available) return;
  throw Error(kOutOfMemory, std::to_string(bytes) + " bytes needed, " + std::to_string(available) +
                                " available; raise the memory limit, or use a smaller model, batch or sequence");
}

Arena::Arena(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;  // no buffer needs an address
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    throw Error(kOutOfMemory, std::to_string(bytes) + " bytes needed; mmap: " + std::strerror(errno));
  }
  madvise(data, bytes, MADV_HUGEPAGE);
  data_ = static_cast<char*>(data);
}

int64_t Arena::untouched_bytes() const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  constexpr int64_t kPages = 1 << 16;  // per call of mincore
  std::vector<unsigned char> resident(kPages);
  int64_t untouched = 0;
  for (int64_t begin = 0; begin < bytes_; begin += kPages * page) {
    const int64_t length = std::min(kPages * page, bytes_ - begin);
    if (mincore(data_ + begin, length, resident.data()) != 0) return bytes_;
    const int64_t pages = (length + page - 1) / page;
    untouched += page * std::count_if(resident.begin(), resident.begin() + pages, [](auto p) { return (p & 1) == 0; });
  }
  return untouched;
}

Arena::~Arena() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

void HostMemory::make_room(int64_t persistent_bytes, int64_t transient_bytes) {
  const bool grow = !transient_ || transient_bytes > transient_->bytes();
  if (persistent_ && !grow) return;
  int64_t needed = persistent_ ? persistent_->untouched_bytes() : persistent_bytes;
  if (grow) needed += transient_bytes;
  require_memory(needed);
  const auto persistent = persistent_ ? persistent_ : std::make_shared<Arena>(persistent_bytes);
  if (grow) transient_ = std::make_unique<Arena>(transient_bytes);
  persistent_ = persistent;  // last, so that a call that throws changes nothing
}

}  // namespace scmoe

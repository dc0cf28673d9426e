#include "device/nccl/library.h"

#include "device/shared_library.h"
#include "error.h"

namespace scmoe::nccl {
namespace {

const char kRemedy[] =
    "; install NCCL 2.18 or newer of major version 2 (Debian and Ubuntu: libnccl2, PyPI: nvidia-nccl-cu13), or set "
    "SCMOE_NCCL_LIBRARY to its libnccl.so.2";

Library open() {
  const SharedLibrary file("NCCL", "SCMOE_NCCL_LIBRARY", {"libnccl.so.2", "libnccl.so"}, kRemedy);
  Library library;
  library.path = file.path();
  const auto get_version = file.function<Result (*)(int*)>("ncclGetVersion");
  if (get_version(&library.version) != kSuccess) file.fail("does not say its version");
  if (library.version < kLeast || library.version >= kBelow) {
    file.fail("is NCCL " + version_text(library.version) + ", 2.18 or newer of major version 2 is needed");
  }
  file.bind(library.error_string, "ncclGetErrorString");
  file.bind(library.get_unique_id, "ncclGetUniqueId");
  file.bind(library.init_rank_config, "ncclCommInitRankConfig");
  file.bind(library.split, "ncclCommSplit");
  file.bind(library.async_error, "ncclCommGetAsyncError");
  file.bind(library.abort, "ncclCommAbort");
  file.bind(library.group_start, "ncclGroupStart");
  file.bind(library.group_end, "ncclGroupEnd");
  file.bind(library.send, "ncclSend");
  file.bind(library.receive, "ncclRecv");
  file.bind(library.all_gather, "ncclAllGather");
  file.bind(library.all_reduce, "ncclAllReduce");
  library.all_to_all = nullptr;
  if (library.version >= kAllToAll) file.bind(library.all_to_all, "ncclAlltoAll");
  return library;
}

}  // namespace

std::string version_text(int version) {
  // Versions before 2.9 are 1000 * major + 100 * minor + patch.
  const int major = version < 10000 ? version / 1000 : version / 10000;
  const int minor = version < 10000 ? version % 1000 / 100 : version % 10000 / 100;
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(version % 100);
}

const Library& library() {
  static const Library opened = open();  // if it throws, the next call tries again
  return opened;
}

}  // namespace scmoe::nccl

// NCCL, opened at run time. The declarations are the part of its C interface that has not changed
// since 2.18; structures that have grown are sized by the version found.
#pragma once

#include <cstddef>
#include <string>

namespace scmoe::nccl {

struct Comm;
struct UniqueId {
  char bytes[128];
};
enum Result : int { kSuccess = 0, kInProgress = 7 };
enum DataType : int { kInt8 = 0, kInt32 = 2, kFloat32 = 7, kBFloat16 = 9 };
enum Reduction : int { kSum = 0 };

constexpr int kUndefined = -2147483647 - 1;

// ncclConfig_t. New versions only append members.
struct Config {
  size_t size;
  unsigned magic = 0xcafebeef;
  unsigned version;
  int blocking = 0;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;  // last member in 2.18
  int traffic_class = kUndefined;
  const char* comm_name = nullptr;
  int collnet_enable = kUndefined;
  int cta_policy = kUndefined;
  int shrink_share = kUndefined;
  int nvls_ctas = kUndefined;  // last member in 2.27
};

constexpr int kLeast = 21800;      // has non-blocking communicators that can be split, and Config
constexpr int kCtaPolicy = 22700;  // has Config up to nvls_ctas
constexpr int kAllToAll = 22803;   // has ncclAlltoAll
constexpr int kBelow = 30000;      // the next major version has another interface

struct Library {
  int version = 0;
  std::string path;  // where the loader found the library
  const char* (*error_string)(Result);
  Result (*get_unique_id)(UniqueId*);
  Result (*init_rank_config)(Comm**, int ranks, UniqueId, int rank, Config*);
  Result (*split)(Comm*, int color, int key, Comm**, Config*);
  Result (*async_error)(Comm*, Result*);
  Result (*abort)(Comm*);
  Result (*group_start)();
  Result (*group_end)();
  Result (*send)(const void*, size_t, DataType, int peer, Comm*, void* stream);
  Result (*receive)(void*, size_t, DataType, int peer, Comm*, void* stream);
  Result (*all_gather)(const void*, void*, size_t, DataType, Comm*, void* stream);
  Result (*all_reduce)(const void*, void*, size_t, DataType, Reduction, Comm*, void* stream);
  // Null before 2.28.3.
  Result (*all_to_all)(const void*, void*, size_t, DataType, Comm*, void* stream);
};

// "2.27.5"
std::string version_text(int version);

// libnccl.so.2, or the file that SCMOE_NCCL_LIBRARY names. Every call returns the same library.
// Throws DEVICE_MISSING, which says what was found, what is needed and what to do.
const Library& library();

}  // namespace scmoe::nccl

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "case.h"

namespace scmoe::test {

// One backend for each instruction set this machine can run.
std::vector<const Backend*> backends_here();

// Every check of every case that is not timed; true when all hold.
bool check();

// Empty when the outputs agree within the tolerance of an f32 kernel.
std::string compare(const std::vector<std::pair<std::string, Value>>& got,
                    const std::vector<std::pair<std::string, Value>>& want);

// A table: op, shape, milliseconds, GFLOP/s or GB/s, ratio to the reference loops, right or wrong. `filter` selects ops
// by prefix.
bool time_ops(const std::string& filter, int num_threads);

// Forward and backward of one pair of blocks on one thread, op by op: its GFLOP/s and the share of our own sgemm's
// best, 0 to 1.
void print_pair();

// The best single-thread sgemm found at training shapes, ours and any library's that is installed.
void print_peak();

}  // namespace scmoe::test

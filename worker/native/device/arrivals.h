// When the last rank came to each collective of a run, though ranks share no clock.
#pragma once

#include <vector>

namespace scmoe {

// A rank's collectives, by position in their queue, in microseconds of its own clock.
struct Journeys {
  std::vector<double> start, end;
};

// By position: when the last member had come, by the clock of `rank`, from its own start to its own end there. A
// collective ends on all its members at about the same moment, which says how far apart two ranks' clocks are; the
// median over all that they share. `peers`: by position, the members beside `rank`.
std::vector<double> last_arrivals(const std::vector<Journeys>& ranks, int rank,
                                  const std::vector<std::vector<int>>& peers);

}  // namespace scmoe

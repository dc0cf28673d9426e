// Finds out when the last rank arrived at each collective of a run, although ranks share no clock.
#pragma once

#include <vector>

namespace scmoe {

// The collectives of one rank, by position in their queue, in microseconds of that rank's clock.
struct Journeys {
  std::vector<double> start, end;
};

// By position in the queue: the time at which the last member had arrived, by the clock of `rank`,
// limited to that rank's own start and end of the collective. `peers` lists, by position, the other
// members. A collective ends on all its members at about the same moment, so the difference of two
// ranks' end times is that of their clocks; the median over all collectives that they share is
// used.
std::vector<double> last_arrivals(const std::vector<Journeys>& ranks, int rank,
                                  const std::vector<std::vector<int>>& peers);

}  // namespace scmoe

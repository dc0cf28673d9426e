#include "device/arrivals.h"

#include <algorithm>

namespace scmoe {
namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

std::vector<double> last_arrivals(const std::vector<Journeys>& ranks, int rank,
                                  const std::vector<std::vector<int>>& peers) {
  const Journeys& own = ranks[size_t(rank)];
  std::vector<std::vector<double>> apart(ranks.size());
  for (size_t at = 0; at < peers.size(); ++at) {
    for (const int peer : peers[at]) apart[size_t(peer)].push_back(own.end[at] - ranks[size_t(peer)].end[at]);
  }
  std::vector<double> ahead;  // by rank: this rank's clock minus the other's
  for (std::vector<double>& differences : apart) ahead.push_back(median(std::move(differences)));
  std::vector<double> arrivals;
  for (size_t at = 0; at < peers.size(); ++at) {
    double last = own.start[at];
    for (const int peer : peers[at]) last = std::max(last, ranks[size_t(peer)].start[at] + ahead[size_t(peer)]);
    arrivals.push_back(std::min(last, std::max(own.start[at], own.end[at])));
  }
  return arrivals;
}

}  // namespace scmoe

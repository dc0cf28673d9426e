// A link that one rank's all-to-alls seem to travel over: shows how well a schedule hides transfers
// where there is no second device.
#pragma once

#include "device/collectives.h"

namespace scmoe::run {

// Collectives as `make` makes them, except that an all-to-all of a rank to itself takes
// `microseconds` longer: data is copied between device and host, by a copy engine, for that long.
// All-to-alls that have peers, and chunked ones, are left alone.
MakeCollectives over_emulated_link(MakeCollectives make, double microseconds);

}  // namespace scmoe::run

// Sums by row without atomics: what goes to one row is sorted together and added in its own order, so results are the same
// bits each time, whatever the number of threads or the device's scheduling.
#pragma once

#include "portable.h"
#include "workspace.h"

namespace equilidar {

// Entries order[starts[row]] to order[starts[row + 1]] go to `row`, in rising order.
struct Segments {
  const uint32_t* order;
  const int64_t* starts;
};

// `rows` are in [0, num_rows); others belong to no segment.
Segments segments_cpu(const int64_t* rows, int64_t num, int64_t num_rows, Workspace& workspace);
Segments segments_cuda(const int64_t* rows, int64_t num, int64_t num_rows, Workspace& workspace, Stream stream);

}  // namespace equilidar

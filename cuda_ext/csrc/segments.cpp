#include "segments.h"

#include <algorithm>

namespace equilidar {

// By counting: one pass over entries and one over rows.
Segments segments_cpu(const int64_t* rows, int64_t num, int64_t num_rows, Workspace& workspace) {
  int64_t* const starts = workspace.get<int64_t>(num_rows + 2);
  uint32_t* const order = workspace.get<uint32_t>(num);
  std::fill_n(starts, num_rows + 2, int64_t{0});
  const auto known = [&](int64_t i) { return rows[i] >= 0 && rows[i] < num_rows; };
  for (int64_t i = 0; i < num; ++i) {
    if (known(i)) ++starts[rows[i] + 2];
  }
  for (int64_t row = 2; row < num_rows + 2; ++row) starts[row] += starts[row - 1];
  // Filling moves each start to its end, which is the next row's start: hence the offset by one.
  for (int64_t i = 0; i < num; ++i) {
    if (known(i)) order[starts[rows[i] + 1]++] = static_cast<uint32_t>(i);
  }
  return {order, starts};
}

}  // namespace equilidar

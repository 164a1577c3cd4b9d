// Stable sort on the GPU, compiled once: CUB's headers take longer than all that calls it.
#pragma once

#include <cstdint>

#include "portable.h"
#include "workspace.h"

namespace equilidar {

struct SortedRows {
  const uint64_t* keys;
  const uint32_t* rows;
};

// Number `keys` 0, 1, ... and sort by them; equal ones keep their order, so the result is the same each time.
SortedRows sort_rows_cuda(const uint64_t* keys, int64_t num, Workspace& workspace, Stream stream);

// Sort finite points along a Morton curve, item by item; those that are not finite come last, as of item 65,535.
constexpr int64_t kMaxKeyedItems = 65534;
template <typename T>
SortedRows morton_order_cuda(
    const T* xyz, int64_t num, const int64_t* offsets, int64_t num_items, Workspace& workspace, Stream stream);

}  // namespace equilidar

// Batch items as ranges of rows: item i owns rows offsets[i] ... offsets[i + 1].
#pragma once

#include "portable.h"

namespace equilidar {

// The item of a row: the last one that begins at or before it.
EQL_HD int64_t item_of(int64_t row, const int64_t* offsets, int64_t num_items) {
  int64_t low = 0, high = num_items;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (offsets[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace equilidar

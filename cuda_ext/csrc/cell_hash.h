// Open addressing of cells by 64-bit keys, so that no grid overflows them.
#pragma once

#include "portable.h"

namespace equilidar {

constexpr uint64_t kNoCell = ~0ULL;

EQL_HD uint64_t first_slot(uint64_t key, uint64_t mask) {
  // Fibonacci hashing: multiplying spreads neighbouring cells, and the high bits are the well mixed ones.
  return (key * 0x9E3779B97F4A7C15ULL >> 32) & mask;
}

// Slots of a table for `num` cells: a power of two, half of them free.
EQL_HD uint64_t table_slots(int64_t num) {
  uint64_t slots = 16;
  while (slots < 2 * static_cast<uint64_t>(num)) slots *= 2;
  return slots;
}

}  // namespace equilidar

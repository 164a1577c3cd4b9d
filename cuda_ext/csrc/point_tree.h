// A tree of bounding boxes over points in an order that keeps neighbours together, for exact search at any density.
//
// A hashed grid wants cells as large as the radius, and then a query near the sensor, where points stand centimetres
// apart, meets thousands of candidates. Here eight points that follow each other form a leaf and eight boxes a group, up
// to the root: every box holds the same number of points, dense or not. No radius enters the build, and the order decides
// only how tight boxes are, never which point is found, so no extent of space can overflow a key.
//
// Rows of several items may share a tree: the item leads the order, and rows of another item are told by their number.
#pragma once

#include <vector>

#include "batch.h"
#include "constants.h"
#include "workspace.h"

namespace equilidar {

constexpr int kFan = 8;           // points in a leaf, boxes in a group
constexpr int kMaxLevels = 11;    // 8^11 points
constexpr int kMaxStack = kMaxLevels * (kFan - 1) + 1;
constexpr int32_t kNoRow = -1;

// Eight points; unused slots have row kNoRow.
template <typename T>
struct alignas(32) PointGroup {
  T xyz[3][kFan];
  int32_t row[kFan];
};

// Eight boxes with the lowest and highest row below each; unused ones are empty.
template <typename T>
struct alignas(32) BoxGroup {
  T low[3][kFan], high[3][kFan];
  int32_t first[kFan], last[kFan];
};

template <typename T>
struct PointTree {
  const PointGroup<T>* leaves;
  const BoxGroup<T>* boxes[kMaxLevels];  // boxes[0] are of leaves, boxes[l] of groups of boxes[l - 1]
  int levels;                            // the root group is boxes[levels - 1]; no levels, no points
  int64_t num;                           // points, with those that are not finite on a GPU
};

// Numbers of groups for `num` points; the last level has one.
struct TreeShape {
  int64_t leaves;
  int64_t groups[kMaxLevels];
  int levels;

  EQL_HD explicit TreeShape(int64_t num) : leaves((num + kFan - 1) / kFan), levels(0) {
    int64_t below = leaves;
    do {
      below = (below + kFan - 1) / kFan;
      groups[levels++] = below;
    } while (below > 1);
  }
};

template <typename T>
EQL_HD bool is_finite(const T* point) {
  // Infinity minus itself is not a number, and nothing is equal to that.
  return point[0] - point[0] == 0 && point[1] - point[1] == 0 && point[2] - point[2] == 0;
}

EQL_HD uint64_t spread_bits(uint64_t value) {
  // Bit i of 16 goes to bit 3 i.
  value = (value | value << 32) & 0x001F00000000FFFFULL;
  value = (value | value << 16) & 0x001F0000FF0000FFULL;
  value = (value | value << 8) & 0x100F00F00F00F00FULL;
  value = (value | value << 4) & 0x10C30C30C30C30C3ULL;
  value = (value | value << 2) & 0x1249249249249249ULL;
  return value;
}

// Position on the curve, the item above it; `scale` is cells per metre, alike for all axes so that cells are cubes.
// Points that are not finite come last.
template <typename T>
EQL_HD uint64_t morton_key(const T* point, const T* low, T scale, int64_t item) {
  if (!is_finite(point)) return ~0ULL;
  uint64_t key = static_cast<uint64_t>(min_of<int64_t>(item, 0xFFFE)) << 48;
  for (int axis = 0; axis < 3; ++axis) {
    // min(NaN, limit) is no integer: written so that it cannot come through.
    const T cell = (point[axis] - low[axis]) * scale;
    const uint64_t index = cell > 0 ? (cell < T(65535) ? static_cast<uint64_t>(cell) : 65535) : 0;
    key |= spread_bits(index) << axis;
  }
  return key;
}

template <typename T>
EQL_HD T cells_per_metre(const T* low, const T* high) {
  const T extent = max_of(max_of(high[0] - low[0], high[1] - low[1]), high[2] - low[2]);
  return extent > 0 ? T(65535) / extent : T(0);
}

// Fill leaf `leaf` with the points at positions leaf * 8 ... of the order.
template <typename T>
EQL_HD void fill_leaf(const T* xyz, const uint32_t* order, int64_t num, int64_t leaf, PointGroup<T>& group) {
  for (int slot = 0; slot < kFan; ++slot) {
    const int64_t place = leaf * kFan + slot;
    const int64_t row = place < num ? order[place] : 0;
    const bool used = place < num && is_finite(xyz + 3 * row);
    group.row[slot] = used ? static_cast<int32_t>(row) : kNoRow;
    for (int axis = 0; axis < 3; ++axis) group.xyz[axis][slot] = used ? xyz[3 * row + axis] : T(0);
  }
}

template <typename T>
EQL_HD void empty_box(BoxGroup<T>& group, int slot) {
  for (int axis = 0; axis < 3; ++axis) {
    group.low[axis][slot] = kInfinity<T>;
    group.high[axis][slot] = -kInfinity<T>;
  }
  group.first[slot] = kLargest<int32_t>;
  group.last[slot] = kNoRow;
}

// Bound leaf `leaf` by box leaf % 8 of its group.
template <typename T>
EQL_HD void bound_leaf(const PointGroup<T>& points, BoxGroup<T>& group, int slot) {
  empty_box(group, slot);
  for (int i = 0; i < kFan; ++i) {
    if (points.row[i] == kNoRow) continue;
    for (int axis = 0; axis < 3; ++axis) {
      group.low[axis][slot] = min_of(group.low[axis][slot], points.xyz[axis][i]);
      group.high[axis][slot] = max_of(group.high[axis][slot], points.xyz[axis][i]);
    }
    group.first[slot] = min_of(group.first[slot], points.row[i]);
    group.last[slot] = max_of(group.last[slot], points.row[i]);
  }
}

// Bound a whole group by one box of the level above.
template <typename T>
EQL_HD void bound_group(const BoxGroup<T>& boxes, BoxGroup<T>& group, int slot) {
  empty_box(group, slot);
  for (int i = 0; i < kFan; ++i) {
    for (int axis = 0; axis < 3; ++axis) {
      group.low[axis][slot] = min_of(group.low[axis][slot], boxes.low[axis][i]);
      group.high[axis][slot] = max_of(group.high[axis][slot], boxes.high[axis][i]);
    }
    group.first[slot] = min_of(group.first[slot], boxes.first[i]);
    group.last[slot] = max_of(group.last[slot], boxes.last[i]);
  }
}

template <typename T>
EQL_HD T squared_distance(T dx, T dy, T dz) {
  return dx * dx + dy * dy + dz * dz;
}

// Distance of a coordinate to an interval.
template <typename T>
EQL_HD T gap_to(T value, T low, T high) {
  const T below = low - value, above = value - high;
  const T outside = below < above ? above : below;
  // max(outside, 0), exactly, without a branch that would keep compilers from vectorising.
  return T(0.5) * (outside + std::abs(outside));
}

// A point to look for, among the rows [first, last) of its item.
template <typename T>
struct Query {
  T xyz[3];
  int32_t first, last;
};

// A group of boxes[level], or a leaf at level -1, in one word: there are fewer than 2^28 leaves.
EQL_HD uint32_t packed_group(int level, int64_t group) {
  return static_cast<uint32_t>(level + 1) << 28 | static_cast<uint32_t>(group);
}

EQL_HD int lowest_bit(uint32_t mask) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(mask)) - 1;
#else
  return __builtin_ctz(mask);
#endif
}

// Call visitor.point(squared distance, row) for each row of the item that may be within visitor.reach(), a squared distance
// that the visitor may lower as it goes; near boxes first. visitor.wants(squared distance, lowest row) may refuse boxes.
//
// Rounding is monotonic and boxes are measured by the operations that measure points, so a point is never nearer than its
// box by as much as the last bit: pruning is exact.
template <typename T, typename Visitor>
EQL_HD void search_tree(const PointTree<T>& tree, const Query<T>& query, Visitor& visitor) {
  const T x = query.xyz[0], y = query.xyz[1], z = query.xyz[2];
  if (tree.levels == 0) return;
  uint32_t stack[kMaxStack];
  T away[kMaxStack];
  int size = 0;
  stack[size] = packed_group(tree.levels - 1, 0);
  away[size++] = T(0);
  while (size > 0) {
    const int level = static_cast<int>(stack[--size] >> 28) - 1;
    const int64_t number = stack[size] & 0x0FFFFFFF;
    const T reach = visitor.reach();
    if (!(away[size] <= reach)) continue;
    T squared[kFan];
    uint32_t hits = 0;
    if (level < 0) {
      const PointGroup<T>& leaf = tree.leaves[number];
#pragma omp simd
      for (int i = 0; i < kFan; ++i) {
        squared[i] = squared_distance(x - leaf.xyz[0][i], y - leaf.xyz[1][i], z - leaf.xyz[2][i]);
      }
#pragma omp simd reduction(| : hits)
      for (int i = 0; i < kFan; ++i) {
        const bool own = (leaf.row[i] >= query.first) & (leaf.row[i] < query.last);
        hits |= uint32_t(own & (squared[i] <= reach)) << i;
      }
      for (; hits != 0; hits &= hits - 1) {
        const int i = lowest_bit(hits);
        visitor.point(squared[i], leaf.row[i]);
      }
      continue;
    }
    const BoxGroup<T>& group = tree.boxes[level][number];
#pragma omp simd
    for (int i = 0; i < kFan; ++i) {
      squared[i] = squared_distance(
          gap_to(x, group.low[0][i], group.high[0][i]), gap_to(y, group.low[1][i], group.high[1][i]),
          gap_to(z, group.low[2][i], group.high[2][i]));
    }
#pragma omp simd reduction(| : hits)
    for (int i = 0; i < kFan; ++i) {
      const bool own = (group.last[i] >= query.first) & (group.first[i] < query.last);
      hits |= uint32_t(own & (squared[i] <= reach)) << i;
    }
    const int bottom = size;
    for (; hits != 0; hits &= hits - 1) {
      const int i = lowest_bit(hits);
      if (!visitor.wants(squared[i], group.first[i])) continue;
      // Insertion keeps the farthest at the bottom, so that the nearest is taken first.
      int place = size++;
      for (; place > bottom && away[place - 1] < squared[i]; --place) {
        away[place] = away[place - 1];
        stack[place] = stack[place - 1];
      }
      away[place] = squared[i];
      stack[place] = packed_group(level - 1, number * kFan + i);
    }
  }
}

// On the CPU each item has a tree of its own.
template <typename T>
std::vector<PointTree<T>> build_trees_cpu(
    const T* xyz, const int64_t* offsets, int64_t num_items, Workspace& workspace);

// On a GPU one tree holds all items, so that nothing about them need be known on the host.
template <typename T>
PointTree<T> build_tree_cuda(
    const T* xyz, int64_t num, const int64_t* offsets, int64_t num_items, Workspace& workspace, Stream stream);

}  // namespace equilidar

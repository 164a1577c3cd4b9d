// On the CPU points are ordered by splitting boxes at the median of their longest side: it costs twice the sorting along
// a Morton curve, but boxes overlap less and a search visits fewer of them.
#include "point_tree.h"

#include <algorithm>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kParallelFrom = 1 << 14;  // points; below, waking threads costs more than it saves

template <typename T>
struct Placed {
  T xyz[3];
  int32_t row;
};

// A sample of the points tells well enough.
template <typename T>
int longest_side(const Placed<T>* points, int64_t num) {
  T low[3] = {points->xyz[0], points->xyz[1], points->xyz[2]}, high[3] = {low[0], low[1], low[2]};
  for (int64_t i = 1; i < num; i += 1 + num / 128) {
    for (int axis = 0; axis < 3; ++axis) {
      low[axis] = min_of(low[axis], points[i].xyz[axis]);
      high[axis] = max_of(high[axis], points[i].xyz[axis]);
    }
  }
  const T x = high[0] - low[0], y = high[1] - low[1], z = high[2] - low[2];
  return x >= y && x >= z ? 0 : (y >= z ? 1 : 2);
}

// Order points so that each run of `span` of them is in a box of its own.
template <typename T>
void split(Placed<T>* points, int64_t num, int64_t span) {
  if (num <= span) return;
  // The largest power of two of runs goes to the left, so that all but the last are full.
  int64_t left = span;
  while (2 * left < num) left *= 2;
  const int axis = longest_side(points, num);
  std::nth_element(points, points + left, points + num, [axis](const Placed<T>& a, const Placed<T>& b) {
    return a.xyz[axis] < b.xyz[axis];
  });
  split(points, left, span);
  split(points + left, num - left, span);
}

template <typename T>
struct Builder {
  PointGroup<T>* leaves;
  BoxGroup<T>* boxes[kMaxLevels];

  // Build group `index` of boxes[level] and all that is below it.
  void build(Placed<T>* points, int64_t num, int level, int64_t index) {
    const int64_t span = int64_t{1} << 3 * (level + 1);
    split(points, num, span);
    const auto child = [&](int64_t slot) {
      Placed<T>* const own = points + slot * span;
      const int64_t count = std::clamp<int64_t>(num - slot * span, 0, span);
      if (count == 0) {
        empty_box(boxes[level][index], static_cast<int>(slot));
      } else if (level == 0) {
        fill(leaves[index * kFan + slot], own, count);
        bound_leaf(leaves[index * kFan + slot], boxes[0][index], static_cast<int>(slot));
      } else {
        build(own, count, level - 1, index * kFan + slot);
        bound_group(boxes[level - 1][index * kFan + slot], boxes[level][index], static_cast<int>(slot));
      }
    };
    if (num >= kParallelFrom) {
      parallel_for(kFan, 1, child);
    } else {
      for (int64_t slot = 0; slot < kFan; ++slot) child(slot);
    }
  }

  static void fill(PointGroup<T>& leaf, const Placed<T>* points, int64_t num) {
    for (int slot = 0; slot < kFan; ++slot) {
      const bool used = slot < num;
      leaf.row[slot] = used ? points[slot].row : kNoRow;
      for (int axis = 0; axis < 3; ++axis) leaf.xyz[axis][slot] = used ? points[slot].xyz[axis] : T(0);
    }
  }
};

template <typename T>
PointTree<T> build_tree(Placed<T>* points, int64_t num, Workspace& workspace) {
  if (num == 0) return {};
  const TreeShape shape(num);
  Builder<T> builder{workspace.get<PointGroup<T>>(shape.leaves), {}};
  PointTree<T> tree{builder.leaves, {}, shape.levels, num};
  for (int level = 0; level < shape.levels; ++level) {
    tree.boxes[level] = builder.boxes[level] = workspace.get<BoxGroup<T>>(shape.groups[level]);
  }
  builder.build(points, num, shape.levels - 1, 0);
  return tree;
}

}  // namespace

template <typename T>
std::vector<PointTree<T>> build_trees_cpu(
    const T* xyz, const int64_t* offsets, int64_t num_items, Workspace& workspace) {
  Placed<T>* const points = workspace.get<Placed<T>>(offsets[num_items] - offsets[0]);
  Placed<T>* end = points;
  std::vector<PointTree<T>> trees;
  for (int64_t item = 0; item < num_items; ++item) {
    Placed<T>* const first = end;
    for (int64_t row = offsets[item]; row < offsets[item + 1]; ++row) {
      const T* const point = xyz + 3 * row;
      if (is_finite(point)) *end++ = {{point[0], point[1], point[2]}, static_cast<int32_t>(row)};
    }
    trees.push_back(build_tree(first, end - first, workspace));
  }
  return trees;
}

template std::vector<PointTree<float>> build_trees_cpu(const float*, const int64_t*, int64_t, Workspace&);
template std::vector<PointTree<double>> build_trees_cpu(const double*, const int64_t*, int64_t, Workspace&);

}  // namespace equilidar

#include "sampling.h"

#include <algorithm>

#include "parallel.h"

namespace equilidar {
namespace {

template <typename T>
struct alignas(32) Farthest {
  T away[kFan];
  int32_t row[kFan];

  Candidate<T> best() const {
    T most = away[0];
    for (int i = 1; i < kFan; ++i) most = away[i] > most ? away[i] : most;
    int32_t row_of_most = kLargest<int32_t>;
    for (int i = 0; i < kFan; ++i) {
      const int32_t own = away[i] == most ? row[i] : kLargest<int32_t>;
      row_of_most = own < row_of_most ? own : row_of_most;
    }
    return {most, row_of_most};
  }
};

// The tree's boxes with their farthest members; points[i] belongs to leaf i, boxes[l] to the tree's boxes[l].
template <typename T>
struct Sampler {
  const PointTree<T>& tree;
  Farthest<T>* points;
  Farthest<T>* boxes[kMaxLevels];

  Sampler(const PointTree<T>& tree, Workspace& workspace) : tree(tree), boxes{} {
    const TreeShape shape(tree.num);
    points = workspace.get<Farthest<T>>(shape.leaves);
    for (int level = 0; level < tree.levels; ++level) {
      boxes[level] = workspace.get<Farthest<T>>(shape.groups[level]);
      for (int64_t group = 0; group < shape.groups[level]; ++group) {
        for (int slot = 0; slot < kFan; ++slot) reset(tree.boxes[level][group].first[slot], boxes[level][group], slot);
      }
    }
    for (int64_t leaf = 0; leaf < shape.leaves; ++leaf) {
      for (int slot = 0; slot < kFan; ++slot) {
        const int32_t row = tree.leaves[leaf].row[slot];
        reset(row == kNoRow ? kLargest<int32_t> : row, points[leaf], slot);
      }
    }
  }

  static void reset(int32_t row, Farthest<T>& group, int slot) {
    group.row[slot] = row;
    group.away[slot] = row == kLargest<int32_t> ? T(-1) : kInfinity<T>;
  }

  Candidate<T> add(const T* sample) { return add(tree.levels - 1, 0, sample[0], sample[1], sample[2]); }

  // Take in a sample below one group; return the group's farthest member.
  Candidate<T> add(int level, int64_t number, T x, T y, T z) {
    const BoxGroup<T>& group = tree.boxes[level][number];
    Farthest<T>& farthest = boxes[level][number];
    T squared[kFan];
    uint32_t hits = 0;
#pragma omp simd
    for (int i = 0; i < kFan; ++i) {
      squared[i] = squared_distance(
          gap_to(x, group.low[0][i], group.high[0][i]), gap_to(y, group.low[1][i], group.high[1][i]),
          gap_to(z, group.low[2][i], group.high[2][i]));
    }
#pragma omp simd reduction(| : hits)
    for (int i = 0; i < kFan; ++i) hits |= uint32_t(squared[i] < farthest.away[i]) << i;
    for (; hits != 0; hits &= hits - 1) {
      const int i = lowest_bit(hits);
      const int64_t child = number * kFan + i;
      const Candidate<T> best = level == 0 ? measure(child, x, y, z) : add(level - 1, child, x, y, z);
      farthest.away[i] = best.away;
      farthest.row[i] = best.row;
    }
    return farthest.best();
  }

  Candidate<T> measure(int64_t number, T x, T y, T z) {
    const PointGroup<T>& leaf = tree.leaves[number];
    Farthest<T>& farthest = points[number];
#pragma omp simd
    for (int i = 0; i < kFan; ++i) {
      const T squared = squared_distance(x - leaf.xyz[0][i], y - leaf.xyz[1][i], z - leaf.xyz[2][i]);
      farthest.away[i] = squared < farthest.away[i] ? squared : farthest.away[i];
    }
    return farthest.best();
  }

  void sample(const T* xyz, int64_t num, int64_t* rows) {
    Candidate<T> next = boxes[tree.levels - 1][0].best();
    for (int64_t i = 0; i < num; ++i) {
      rows[i] = next.row;
      if (i + 1 < num) next = add(xyz + 3 * static_cast<int64_t>(next.row));
    }
  }
};

}  // namespace

template <typename T>
void farthest_points_cpu(
    const T* xyz, int64_t num_points, const int64_t* offsets, int64_t num_items, int64_t num, int64_t* rows,
    Workspace& workspace) {
  const std::vector<PointTree<T>> trees = build_trees_cpu(xyz, offsets, num_items, workspace);
  std::vector<Sampler<T>> samplers;
  for (int64_t item = 0; item < num_items; ++item) {
    samplers.emplace_back(trees[item], workspace);
  }
  parallel_for(num_items, 1, [&](int64_t item) {
    if (trees[item].levels == 0) {
      std::fill_n(rows + item * num, num, int64_t{-1});
    } else {
      samplers[item].sample(xyz, num, rows + item * num);
    }
  });
}

template void farthest_points_cpu(
    const float*, int64_t, const int64_t*, int64_t, int64_t, int64_t*, Workspace&);
template void farthest_points_cpu(
    const double*, int64_t, const int64_t*, int64_t, int64_t, int64_t*, Workspace&);

}  // namespace equilidar

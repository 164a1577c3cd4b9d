// The k nearest points within a radius: see equilidar/ops/neighbors.py.
#pragma once

#include "point_tree.h"

namespace equilidar {

// A little above a squared distance: all points whose distance, rounded after the square root, may still be equal to it.
template <typename T>
EQL_HD T reach_of(T squared) {
  // Two numbers with one square root differ by less than this, also where squares underflow.
  return squared * (1 + 4 * kEpsilon<T>) + kSmallest<T>;
}

// Collects the k nearest rows by distance, then row. `index` and `distance` are the output's.
template <typename T>
struct Nearest {
  int64_t* index;
  T* distance;
  int64_t k;
  T radius, reach_squared;

  EQL_HD Nearest(int64_t* index, T* distance, int64_t k, T radius, T hint)
      : index(index), distance(distance), k(k), radius(radius), reach_squared(min_of(reach_of(radius * radius), hint)) {
    for (int64_t slot = 0; slot < k; ++slot) {
      index[slot] = -1;
      distance[slot] = kInfinity<T>;
    }
  }

  EQL_HD T reach() const { return reach_squared; }

  // Where points coincide by thousands (padding at the origin) all their boxes are equally near, and only a lower row
  // than the k-th neighbour's could still enter.
  EQL_HD bool wants(T squared, int32_t lowest_row) const {
    return index[k - 1] < 0 || lowest_row < index[k - 1] || std::sqrt(squared) < distance[k - 1];
  }

  EQL_HD void point(T squared, int64_t row) {
    const T away = std::sqrt(squared);
    // An overflow to infinity is no distance.
    if (!(away <= radius) || away == kInfinity<T>) return;
    int64_t place = k - 1;
    if (!before(away, row, place)) return;
    for (; place > 0 && before(away, row, place - 1); --place) {
      distance[place] = distance[place - 1];
      index[place] = index[place - 1];
    }
    distance[place] = away;
    index[place] = row;
    // The k-th distance is known only once there are k.
    if (index[k - 1] >= 0) reach_squared = min_of(reach_squared, reach_of(distance[k - 1] * distance[k - 1]));
  }

 private:
  EQL_HD bool before(T away, int64_t row, int64_t place) const {
    return away < distance[place] || (away == distance[place] && (index[place] < 0 || row < index[place]));
  }
};

// Search for one point; `hint` is a squared distance that the k-th neighbour cannot exceed.
template <typename T>
EQL_HD void nearest_rows(
    const PointTree<T>& tree, const T* point, int64_t first, int64_t last, int64_t k, T radius, T hint, int64_t* index,
    T* distance) {
  Nearest<T> found(index, distance, k, radius, hint);
  if (first >= last || !is_finite(point)) return;
  const Query<T> query{{point[0], point[1], point[2]}, static_cast<int32_t>(first), static_cast<int32_t>(last)};
  search_tree(tree, query, found);
}

// index and distance are (num_queries, k).
template <typename T>
void k_nearest_cpu(
    const T* query, int64_t num_queries, const int64_t* query_offsets, const T* reference, int64_t num_references,
    const int64_t* reference_offsets, int64_t num_items, int64_t k, T radius, int64_t* index, T* distance,
    Workspace& workspace);
template <typename T>
void k_nearest_cuda(
    const T* query, int64_t num_queries, const int64_t* query_offsets, const T* reference, int64_t num_references,
    const int64_t* reference_offsets, int64_t num_items, int64_t k, T radius, int64_t* index, T* distance,
    Workspace& workspace, Stream stream);

}  // namespace equilidar

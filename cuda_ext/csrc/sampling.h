// Farthest point sampling: see equilidar/ops/sampling.py.
//
// A new sample changes only points that are nearer to it than to all samples before. Points stand in boxes that know their
// farthest member; a box that is no nearer to the sample than its farthest member is to the others is passed over. The
// result is exact, ties included: a box's distance is never above that of a point in it, also as rounded.
#pragma once

#include "point_tree.h"

namespace equilidar {

// A point's row and its squared distance to the samples; the farther one, then the lower row, comes first.
template <typename T>
struct Candidate {
  T away;
  int32_t row;
};

template <typename T>
EQL_HD Candidate<T> farther(Candidate<T> a, Candidate<T> b) {
  return b.away > a.away || (b.away == a.away && b.row < a.row) ? b : a;
}

template <typename T>
EQL_HD Candidate<T> no_candidate() {
  return {T(-1), kLargest<int32_t>};
}

// rows is (num_items, num); -1 for items without a finite point.
template <typename T>
void farthest_points_cpu(
    const T* xyz, int64_t num_points, const int64_t* offsets, int64_t num_items, int64_t num, int64_t* rows,
    Workspace& workspace);
template <typename T>
void farthest_points_cuda(
    const T* xyz, int64_t num_points, const int64_t* offsets, int64_t num_items, int64_t num, int64_t* rows,
    Workspace& workspace, Stream stream);

}  // namespace equilidar

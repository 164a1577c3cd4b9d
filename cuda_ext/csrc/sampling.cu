#include "device_sort.h"
#include "launch.cuh"
#include "sampling.h"

namespace equilidar {
namespace {

constexpr int kBucket = 64;   // points
constexpr int kBlock = 1024;  // threads that sample one item
constexpr int kWarp = 32;

// Points in sorted order, an item's together; buckets are runs of 64 of them, counted from the item's first point.
template <typename T>
struct Buckets {
  T* xyz;       // (N, 3)
  T* away;      // (N,) squared distance to the samples
  int32_t* row; // (N,)
  T* box;       // (buckets, 6): low, high
  T* most;      // (buckets,) of the farthest member
  int32_t* row_of_most;
};

// First position in sorted keys of an item, or of what comes after the last one.
__device__ int64_t first_of_item(const uint64_t* keys, int64_t num, int64_t item) {
  int64_t low = 0, high = num;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (static_cast<int64_t>(keys[middle] >> 48) < item) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <typename T>
__device__ Candidate<T> farthest_of_warp(Candidate<T> best) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    const Candidate<T> other{
        __shfl_xor_sync(~0u, best.away, lanes), __shfl_xor_sync(~0u, best.row, lanes)};
    best = farther(best, other);
  }
  return best;
}

template <typename T>
__device__ T lowest_of_warp(T value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value = min_of(value, __shfl_xor_sync(~0u, value, lanes));
  return value;
}

// One block samples one item. Warps look at 32 buckets at a time and update those that the new sample may change.
template <typename T>
__global__ void __launch_bounds__(kBlock) farthest_points_kernel(
    const T* xyz, const uint64_t* keys, const uint32_t* order, int64_t num_points, const int64_t* offsets, int64_t num,
    Buckets<T> buckets, int64_t* rows) {
  __shared__ Candidate<T> best_of_warps[kBlock / kWarp];
  __shared__ int32_t chosen;
  const int64_t item = blockIdx.x;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  rows += item * num;
  const int64_t start = first_of_item(keys, num_points, item), stop = first_of_item(keys, num_points, item + 1);
  if (start == stop) {
    for (int64_t i = threadIdx.x; i < num; i += kBlock) rows[i] = -1;
    return;
  }
  // An item's buckets have room of their own: those before hold at most a point short of 64 each.
  const int64_t first_bucket = start / kBucket + item, num_buckets = (stop - start + kBucket - 1) / kBucket;
  for (int64_t bucket = warp; bucket < num_buckets; bucket += kBlock / kWarp) {
    T low[3] = {kInfinity<T>, kInfinity<T>, kInfinity<T>}, high[3] = {-kInfinity<T>, -kInfinity<T>, -kInfinity<T>};
    Candidate<T> best = no_candidate<T>();
    for (int64_t i = start + bucket * kBucket + lane; i < min_of(stop, start + (bucket + 1) * kBucket); i += kWarp) {
      const int32_t row = static_cast<int32_t>(order[i]);
      buckets.row[i] = row;
      buckets.away[i] = kInfinity<T>;
      for (int axis = 0; axis < 3; ++axis) {
        const T value = xyz[3 * static_cast<int64_t>(row) + axis];
        buckets.xyz[3 * i + axis] = value;
        low[axis] = min_of(low[axis], value);
        high[axis] = max_of(high[axis], value);
      }
      best = farther(best, Candidate<T>{kInfinity<T>, row});
    }
    best = farthest_of_warp(best);
    for (int axis = 0; axis < 3; ++axis) {
      low[axis] = lowest_of_warp(low[axis]);
      high[axis] = -lowest_of_warp(-high[axis]);
    }
    if (lane > 0) continue;
    const int64_t own = first_bucket + bucket;
    for (int axis = 0; axis < 3; ++axis) {
      buckets.box[6 * own + axis] = low[axis];
      buckets.box[6 * own + 3 + axis] = high[axis];
    }
    buckets.most[own] = best.away;
    buckets.row_of_most[own] = best.row;
  }
  for (int64_t i = 0; i < num; ++i) {
    __syncthreads();
    Candidate<T> best = no_candidate<T>();
    for (int64_t bucket = threadIdx.x; bucket < num_buckets; bucket += kBlock) {
      best = farther(best, {buckets.most[first_bucket + bucket], buckets.row_of_most[first_bucket + bucket]});
    }
    best = farthest_of_warp(best);
    if (lane == 0) best_of_warps[warp] = best;
    __syncthreads();
    if (warp == 0) {
      best = farthest_of_warp(best_of_warps[lane]);
      if (lane == 0) {
        rows[i] = best.row;
        chosen = best.row;
      }
    }
    __syncthreads();
    const T* const sample = xyz + 3 * static_cast<int64_t>(chosen);
    const T x = sample[0], y = sample[1], z = sample[2];
    for (int64_t base = warp * kWarp; base < num_buckets; base += kBlock) {
      const int64_t own = first_bucket + base + lane;
      bool nearer = false;
      if (base + lane < num_buckets) {
        const T* const box = buckets.box + 6 * own;
        nearer = squared_distance(gap_to(x, box[0], box[3]), gap_to(y, box[1], box[4]), gap_to(z, box[2], box[5])) <
                 buckets.most[own];
      }
      for (uint32_t hits = __ballot_sync(~0u, nearer); hits != 0; hits &= hits - 1) {
        const int64_t bucket = base + lowest_bit(hits);
        best = no_candidate<T>();
        for (int64_t p = start + bucket * kBucket + lane; p < min_of(stop, start + (bucket + 1) * kBucket); p += kWarp) {
          const T* const point = buckets.xyz + 3 * p;
          buckets.away[p] = min_of(buckets.away[p], squared_distance(x - point[0], y - point[1], z - point[2]));
          best = farther(best, {buckets.away[p], buckets.row[p]});
        }
        best = farthest_of_warp(best);
        if (lane == 0) {
          buckets.most[first_bucket + bucket] = best.away;
          buckets.row_of_most[first_bucket + bucket] = best.row;
        }
      }
    }
  }
}

}  // namespace

template <typename T>
void farthest_points_cuda(
    const T* xyz, int64_t num_points, const int64_t* offsets, int64_t num_items, int64_t num, int64_t* rows,
    Workspace& workspace, Stream stream) {
  if (num_items == 0) return;
  if (num_items > kMaxKeyedItems) throw std::runtime_error("farthest_points: too many items for one call on a GPU");
  const SortedRows sorted = morton_order_cuda(xyz, num_points, offsets, num_items, workspace, stream);
  const int64_t num_buckets = num_points / kBucket + num_items + 1;
  const Buckets<T> buckets{workspace.get<T>(3 * num_points), workspace.get<T>(num_points),
                           workspace.get<int32_t>(num_points), workspace.get<T>(6 * num_buckets),
                           workspace.get<T>(num_buckets), workspace.get<int32_t>(num_buckets)};
  farthest_points_kernel<<<static_cast<unsigned>(num_items), kBlock, 0, stream_of(stream)>>>(
      xyz, sorted.keys, sorted.rows, num_points, offsets, num, buckets, rows);
  check_launch("farthest_points");
}

template void farthest_points_cuda(
    const float*, int64_t, const int64_t*, int64_t, int64_t, int64_t*, Workspace&, Stream);
template void farthest_points_cuda(
    const double*, int64_t, const int64_t*, int64_t, int64_t, int64_t*, Workspace&, Stream);

}  // namespace equilidar

/**
 * The guest's choice. It outlives the connection: a front end that connects again does not tell it anew,
 * and a guest that turned the cache off sends no flushes. Where the front end keeps requests in flight it outlives
 * this process as well, see InflightKeeper.
 */
export interface WriteCache {
  isWriteback: boolean;
}
